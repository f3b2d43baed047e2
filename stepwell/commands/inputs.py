"""``inputs``: the stored inputs of a step."""

from __future__ import annotations

from typing import Any

from stepwell.commands.command import Option, Table, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.store.values.structure import summary, type_name
from stepwell.kernel_runtime.text import in_one_line


def _text(found: dict[str, Any]) -> str:
    rows = [(name, type_name(value), in_one_line(summary(value))) for name, value in found.items()]
    return str(Table(rows, "the step has no inputs"))


def _data(found: dict[str, Any]) -> dict[str, Any]:
    return {name: {"type": type_name(value), "summary": summary(value)} for name, value in found.items()}


@command(
    options={"step": Option(completes="steps")},
    text=_text,
    data=lambda found: {"inputs": _data(found)},
    definitions="optional",
)
def inputs(step: str, *, store: AnyStore = None) -> dict[str, Any]:
    """Load the stored inputs of a step by the names of its parameters, for example to look into a step that failed.

    In a notebook ``%stepwell inputs`` binds them to variables.

    Parameters
    ----------
    step
        A step.
    store
        A store directory or an open store; by default the session's.

    Raises
    ------
    UnknownKeyError
        If there is no such step.
    ValueUnavailableError
        If an input has no stored value.
    """
    return get_session().inputs(step, store=store)
