"""The command ``code``, which shows the source code of an asset or step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import unknown_key


@dataclass(frozen=True, slots=True)
class StepCode:
    """The source code of one step, source asset or job."""

    key: str
    """The key of the step or source asset, or the name of the job."""
    where: str
    """The cell or file that contains the code; empty if neither is known."""
    code: str
    """The source code; empty if it is not available."""


class Code(tuple[StepCode, ...]):
    """The result of `code`: the source code of one step, or of every step of an asset. ``str`` puts a comment with the key above each step."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values: ``{"steps": [{"key", "where", "code"}]}``."""
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
        The key of an asset or step. A graph-backed asset has several steps, and all of them are shown.

    Returns
    -------
    Code
        The source code of each step.

    Raises
    ------
    UnknownKeyError
        If no definition in this process has the key.
    """
    nodes = get_session().inspect().lineage().nodes
    steps = [StepCode(node.key, node.where, node.code) for node in nodes if key in (node.key, node.parent, *node.assets)]
    if not steps:
        raise unknown_key("asset or step", key, [node.key for node in nodes])
    return Code(steps)
