"""``code``: the source of a definition."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import unknown_key


@dataclass(frozen=True, slots=True)
class StepCode:
    """The source of one step."""

    key: str
    where: str
    code: str


class Code(tuple[StepCode, ...]):
    """The source of the steps of a key."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the source as JSON values."""
        return {"steps": [asdict(step) for step in self]}

    def __str__(self) -> str:
        return "\n".join(
            f"# {step.key}{f' ({step.where})' if step.where else ''}\n{step.code.rstrip() or '# source not available'}"
            for step in self
        )


@command(options={"key": Option(completes="steps")}, definitions="required")
def code(key: str) -> Code:
    """Show the source code of an asset or step.

    Parameters
    ----------
    key
        An asset or a step.

    Returns
    -------
    Code
        The source of each step of the key.

    Raises
    ------
    UnknownKeyError
        If no definition has the key.
    """
    nodes = get_session().inspect().lineage().nodes
    steps = [
        StepCode(node.key, node.where, node.code) for node in nodes if key in (node.key, node.parent, *node.assets)
    ]
    if not steps:
        raise unknown_key("asset or step", key, [node.key for node in nodes])
    return Code(steps)
