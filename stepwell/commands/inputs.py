"""``inputs``: the stored inputs of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from stepwell.commands.command import Option, Table, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import DefinitionUnavailableError, ValueUnavailableError
from stepwell.kernel_runtime.session import Session
from stepwell.kernel_runtime.session.preparation import plan_of_steps
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.store.catalog.tables import read_attempts
from stepwell.kernel_runtime.store.values.structure import summary, type_name
from stepwell.kernel_runtime.text import in_one_line

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


def _text(found: dict[str, Any]) -> str:
    rows = [(name, type_name(value), in_one_line(summary(value))) for name, value in found.items()]
    return str(Table(rows, "the step has no inputs"))


def _data(found: dict[str, Any]) -> dict[str, Any]:
    return {name: {"type": type_name(value), "summary": summary(value)} for name, value in found.items()}


Inputs: TypeAlias = "dict[str, tuple[tuple[str, ...], Any]]"
"""By parameter name, the keys of the values that an input consists of, none for config and defaults, and the input."""
_VERSIONS = 200
"""Materializations of a key among which the one that a step was given is looked for."""


def step_inputs(session: Session, step_key: str, *, store: AnyStore = None) -> Inputs:
    """Return a step's stored inputs; errors as in `inputs`.

    If the step is not defined here, they are those of its last run that ended well.
    """
    inspection = session.inspect(store=store)
    try:
        plan = plan_of_steps([step_key], inspection.definitions, inspection.walk, inspection.store)
    except DefinitionUnavailableError:
        recorded = _recorded(step_key, inspection.store)
        if recorded is None:
            raise
        return recorded
    values: Inputs = {}
    for step in plan.steps:
        for given in step.inputs:
            if given.carries_value and given.keys:
                loaded = [session.load(key, store=store) for key in given.keys]
                values[given.name] = given.keys, loaded if given.fan_in else loaded[0]
            elif given.name and not given.keys:
                values[given.name] = (), given.default
        values.update((name, ((), value)) for name, value in step.config.items())
    return values


def _recorded(step_key: str, store: ValueStore) -> Inputs | None:
    """Return the inputs of the last execution of a step; None if that is not recorded."""
    attempts = store.catalog.ask(read_attempts, step_key)
    newest = next((record.materializations[0] for record in attempts if record.materializations), None)
    if newest is None:
        return None
    values: dict[str, list[tuple[str, Any]]] = {}
    for given in newest.inputs:
        if given.kind == "value":
            versions = store.history(given.key, limit=_VERSIONS)
            item = next((item for item in versions if item.data_version == given.version), None)
            if item is None or item.value is None:
                raise ValueUnavailableError(
                    f"the value of {given.key!r} that {step_key!r} was given is not stored any more",
                    remedy=f"%stepwell load {given.key} binds what is current",
                )
            values.setdefault(given.name, []).append((given.key, store.get(item.value, key=given.key)))
    # Members of a fan-in have names that end in brackets.
    return {
        name.removesuffix("[]"): (
            tuple(key for key, _ in members),
            [value for _, value in members] if name.endswith("[]") else members[0][1],
        )
        for name, members in values.items()
    }


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
    return {name: value for name, (_, value) in step_inputs(get_session(), step, store=store).items()}
