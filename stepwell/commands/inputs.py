"""The command ``inputs``, which loads the stored inputs of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from stepwell.commands.command import Option, Table, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import DefinitionUnavailableError, ValueUnavailableError
from stepwell.kernel_runtime.session import Session
from stepwell.kernel_runtime.session.inspection import plan_of_steps
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.store.catalog.tables import read_attempts
from stepwell.kernel_runtime.store.values.structure import summary, type_name
from stepwell.kernel_runtime.text import in_one_line

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


def _text(inputs: dict[str, Any]) -> str:
    rows = [(name, type_name(value), in_one_line(summary(value))) for name, value in inputs.items()]
    return str(Table(rows, "the step has no inputs"))


def _data(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: {"type": type_name(value), "summary": summary(value)} for name, value in inputs.items()}


Inputs: TypeAlias = "dict[str, tuple[tuple[str, ...], Any]]"
"""Maps each parameter of a step to a pair: the keys of the input's stored values (empty for config and defaults), and the input itself."""
_VERSIONS = 200
"""How many materializations of an upstream key are searched, newest first, for the value that a step received."""


def step_inputs(session: Session, step_key: str, *, store: AnyStore = None) -> Inputs:
    """Return the inputs of a step by parameter name: each input together with the keys of the stored values that it contains.

    If the step is defined in this process, the inputs are the current values of its upstream assets and steps, its config, and the defaults of
    inputs that no asset provides. Otherwise they are the values that the step's last successful execution received. The errors are those of
    `inputs`.
    """
    inspection = session.inspect(store=store)
    try:
        plan = plan_of_steps([step_key], inspection.definitions, inspection.walk, inspection.store)
    except DefinitionUnavailableError:
        recorded = _recorded_inputs(step_key, inspection.store)
        if recorded is None:
            raise
        return recorded
    values: Inputs = {}
    for step in plan.steps:
        for item in step.inputs:
            if item.carries_value and item.keys:
                loaded = [session.load(key, store=store) for key in item.keys]
                values[item.name] = item.keys, loaded if item.fan_in else loaded[0]
            elif item.name and not item.keys:
                values[item.name] = (), item.default
        values.update((name, ((), value)) for name, value in step.config.items())
    return values


def _recorded_inputs(step_key: str, store: ValueStore) -> Inputs | None:
    """Return the inputs that the last successful execution of a step received; None if no execution is recorded.

    Raises
    ------
    ValueUnavailableError
        If one of these values is no longer stored.
    """
    attempts = store.catalog.ask(read_attempts, step_key)
    newest = next((record.materializations[0] for record in attempts if record.materializations), None)
    if newest is None:
        return None
    values: dict[str, list[tuple[str, Any]]] = {}
    for recorded in newest.inputs:
        if recorded.kind == "value":
            versions = store.history(recorded.key, limit=_VERSIONS)
            version = next((version for version in versions if version.data_version == recorded.version), None)
            if version is None or version.value is None:
                raise ValueUnavailableError(
                    f"the value of {recorded.key!r} that {step_key!r} received is no longer stored",
                    remedy=f"load the current value: %stepwell load {recorded.key}",
                )
            values.setdefault(recorded.name, []).append((recorded.key, store.get(version.value, key=recorded.key)))
    # The names of the members of a fan-in end in brackets.
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
    data=lambda values: {"inputs": _data(values)},
    definitions="optional",
)
def inputs(step: str, *, store: AnyStore = None) -> dict[str, Any]:
    """Load the stored inputs of a step, for example to debug a step that failed.

    If the step is defined in this process, the current values of its upstream assets and steps are loaded; otherwise, the values that its last
    successful execution received. In a notebook, ``%stepwell inputs`` also binds each input to a variable with the name of the parameter.

    Parameters
    ----------
    step
        The key of a step.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    dict
        The inputs by parameter name. They include config and the defaults of inputs that no asset provides, but only if the step is defined in
        this process.

    Raises
    ------
    UnknownKeyError, DefinitionUnavailableError
        If the step is neither defined nor recorded in the store.
    ValueUnavailableError
        If an input has no stored value.
    """
    return {name: value for name, (_, value) in step_inputs(get_session(), step, store=store).items()}
