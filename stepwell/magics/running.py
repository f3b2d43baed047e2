"""The run of an asset's cell (register, materialize, bind the variables, display, print one line), and the display of exceptions.

A traceback of the user's code is shown without frames of the engine, below a line with the failed asset and its cell.
"""

from __future__ import annotations

import builtins
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from stepwell.commands.wording import notice_text, run_line, upstream_line
from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.errors import (
    InvalidDefinitionError,
    StepwellError,
    UnknownKeyError,
    UpstreamBudgetError,
    ValueUnavailableError,
)
from stepwell.kernel_runtime.execution.addresses import reached_names
from stepwell.kernel_runtime.execution.contents import can_change
from stepwell.kernel_runtime.execution.result import RunResult, user_traceback
from stepwell.kernel_runtime.execution.timeline import Unstored
from stepwell.kernel_runtime.execution.world import Writer
from stepwell.kernel_runtime.planning.plan import asset_steps
from stepwell.kernel_runtime.planning.states import StepState
from stepwell.kernel_runtime.records.runs import CapturedOutput, StepRecord
from stepwell.kernel_runtime.session.requests import requesting
from stepwell.kernel_runtime.store.signing import read_outputs
from stepwell.kernel_runtime.text import duration
from stepwell.magics.face import Face, Progress, figure_of, say, show_again


def present(face: Face, error: BaseException, *, shown_as: str = "") -> None:
    """Make IPython show an exception without frames of Stepwell.

    IPython calls ``_render_traceback_`` of the exception. The traceback is rendered immediately, because frames of Stepwell are added
    while the exception propagates. Rendering also makes ``%debug`` start in the user's innermost frame.

    Parameters
    ----------
    shown_as
        A line above the traceback that names the failed step.
    """
    if isinstance(error, StepwellError) or hasattr(error, "_render_traceback_"):
        return
    trace = _below_the_shell(user_traceback(error.__traceback__))
    try:
        lines = face.shell.InteractiveTB.structured_traceback(type(error), error, trace, tb_offset=0)
    except Exception:  # IPython falls back to its own rendering of the whole traceback
        return
    if shown_as:
        lines = [shown_as, *lines]
    # An exception without a `__dict__` accepts no new attribute and is shown with all frames.
    with suppress(AttributeError, TypeError):
        error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]


def _below_the_shell(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback below the frames of IPython that called the magic."""
    frame = trace
    while frame is not None and _is_shells(frame):
        frame = frame.tb_next
    return user_traceback(frame) if frame is not trace and frame is not None else (frame or trace)


def _is_shells(trace: TracebackType) -> bool:
    name = trace.tb_frame.f_globals.get("__name__", "")
    return isinstance(name, str) and name.split(".")[0] in ("IPython", "ipykernel")


def failed_step(face: Face, result: Any) -> str:
    """Return a line about the failed step of a run, such as ``raw failed (cell 4)``; empty if no step failed."""
    for step in getattr(result, "steps", ()) or ():
        if step.status in ("failed", "cancelled"):
            entry = face.session.registry.assets.get(step.key.split(".")[0]) or face.session.registry.jobs.get(
                step.key.split(".")[0]
            )
            where = getattr(entry.definition, "where", "") if entry is not None else ""
            verb = "failed" if step.status == "failed" else "was cancelled"
            return f"{step.key} {verb}" + (f" ({where})" if where else "")
    return ""


def run_definition(face: Face, definition: AssetsDefinition, arguments: Namespace, *, show_value: bool = False) -> None:
    """Register the definition of an asset cell, and run it as its flags request.

    Parameters
    ----------
    show_value
        If True, display the value after the run, because the body does not display it.
    """
    name = " ".join(str(key) for key in definition.keys)
    own_keys = [step.key for step in asset_steps(definition)]
    with registry_restored(face), requesting(face.session.timeline, [definition], cell=True):
        face.session.registry.register(definition)
        if arguments.register or face.defines_only:
            face.say(f"{name}: registered")
            return
        # If no upstream asset is registered, no other step can run, and the plan of materialize() suffices.
        registered = face.session.registry.assets
        has_upstream = any(str(key) in registered for key in definition.upstream_keys)
        states = face.session.states([definition]) if arguments.dry_run or has_upstream else {}
        if arguments.dry_run:
            _say_what_would_run(name, states, own_keys)
            return
        waiting = [state for key, state in states.items() if key not in own_keys and state.must_run]
        if waiting:
            check_budget(face, name, waiting)
        line = upstream_line(name, waiting) if waiting else ""
        for key in own_keys:
            # As in a new kernel, the cell and its plan must not see settings that the cell's last run changed.
            face.timeline.world.undo_settings(key)
        with user_errors(face), displays_off(face, off=arguments.quiet), Progress(face, line):
            result = face.session.materialize([definition], force=arguments.force, show=own_keys)
    keys = [str(key) for key in definition.keys]
    result = bind_loadable(
        face, keys, result, lambda: face.session.materialize([definition], force=True, show=own_keys)
    )
    finish(face, definition, result, quiet=arguments.quiet, show_value=show_value)
    leave_result(face, result_of(face, definition))


@contextmanager
def registry_restored(face: Face) -> Iterator[None]:
    """Restore the registry if the new definition cannot be planned, for example because of a cycle or a missing upstream asset."""
    registry = face.session.registry
    assets, jobs, run = dict(registry.assets), dict(registry.jobs), face.session.last_run
    try:
        yield
    except InvalidDefinitionError:
        if face.session.last_run is not run:
            raise  # the user's code raised the error during the run
        changed = tuple({*registry.assets, *assets, *registry.jobs, *jobs})
        registry.assets.clear()
        registry.assets.update(assets)
        registry.jobs.clear()
        registry.jobs.update(jobs)
        if registry.on_change is not None:
            registry.on_change(changed)
        raise


def check_budget(face: Face, name: str, waiting: Sequence[StepState]) -> None:
    """Raise `UpstreamBudgetError` if the expected duration of the upstream steps exceeds ``Stepwell.upstream_budget``."""
    known = sum(state.seconds or 0.0 for state in waiting)
    budget = face.settings.upstream_budget
    if face.interactive and known > budget:
        raise UpstreamBudgetError(
            f"{upstream_line(name, waiting)}: nothing was run, because upstream took {duration(known)} the last time, more than Stepwell.upstream_budget ({duration(budget)})",
            remedy=f"run it: %materialize {name}",
        )


def _say_what_would_run(name: str, states: dict[str, StepState], own_keys: Sequence[str]) -> None:
    ahead = [state for state in states.values() if state.must_run]
    if not ahead:
        say(f"{name}: fresh, nothing would run")
        return
    for state in ahead:
        facts = [state.state, *(reason.text for reason in state.reasons[:1])]
        if state.seconds:
            facts.append(f"last {duration(state.seconds)}")
        say(
            f"{'would run' if state.key in own_keys else 'first'} {state.key} ({'; '.join(dict.fromkeys(fact for fact in facts if fact))})"
        )


@contextmanager
def displays_off(face: Face, *, off: bool) -> Iterator[None]:
    """Record the displays of steps without showing them, if `off` is True."""
    before, face.displays.quiet = face.displays.quiet, off
    try:
        yield
    finally:
        face.displays.quiet = before


@contextmanager
def user_errors(face: Face) -> Iterator[None]:
    """Show exceptions of the user's code below the name of the failed step, and without frames of Stepwell."""
    before = face.session.last_run
    try:
        yield
    except BaseException as error:
        now = face.session.last_run
        present(face, error, shown_as=failed_step(face, now) if now is not before else "")
        raise


def finish(face: Face, definition: AssetsDefinition, result: Any, *, quiet: bool, show_value: bool) -> None:
    """Show the recorded output of reused steps, and print the line of the run. The variables must already be bound."""
    own_keys = {step.key for step in asset_steps(definition)}
    records = [record for record in result.steps if record.key in own_keys]
    for record in records:
        if record.status == "reused" and record.materializations:
            show_again(outputs_of(face, record), displays=not quiet)
    name = definition.keys[0].name
    if show_value and not quiet and name in face.namespace:
        if figure_of(face.namespace[name]) is None:
            face.figures.show(face.namespace[name])
        else:
            _show_picture(face, definition, records)
    for record in records:
        for unstored in record.not_kept:
            held = unstored.partition(": ")[2]
            face.say(f"{name} is not stored ({held}): computed again in a kernel that needs it")
    if records:
        line = run_line(" ".join(str(key) for key in definition.keys), records)
        face.say(line + changed_text(definition))


_LAST_RESULTS = ("_", "__", "___")
"""The names to which the shell binds the last results."""


def result_of(face: Face, definition: AssetsDefinition) -> Any:
    """Return the value that would be the shell's last result if the cell were a plain cell, or None."""
    body = getattr(definition.node, "body", None)
    result = None
    for step in asset_steps(definition):
        result = face.timeline.results.pop(step.key, None)
    if not isinstance(body, CellBody) or not body.result:
        return result
    unstored = face.timeline.unstored.get(body.result)
    if unstored is not None and body.result not in face.namespace:
        return Unstored(unstored)
    return face.namespace.get(body.result, getattr(builtins, body.result, None))


def leave_result(face: Face, value: Any) -> None:
    """Store the result of the running cell in ``_``, ``__`` and ``Out``, as the shell does for a plain cell."""
    if value is None:
        return
    hook = face.shell.displayhook
    hook.check_for_underscore()
    hook.update_user_ns(value)
    hook.fill_exec_result(value)
    face.timeline.note(Writer("step", "", ""), bound=_LAST_RESULTS)


def _replace_result(face: Face, old: Any, new: Any) -> None:
    """Replace the placeholder of a result by the result in the shell's names and ``Out``."""
    hook, space = face.shell.displayhook, face.namespace
    outputs = space.get("_oh")
    holders: list[dict[Any, Any]] = [space, vars(hook), *([outputs] if isinstance(outputs, dict) else [])]
    for holder in holders:
        for name, value in list(holder.items()):
            if value is old:
                holder[name] = new


def _compute_results(face: Face, names: Iterable[str]) -> None:
    """Run reused cells whose last results are needed and were not stored."""
    for name in names:
        last_result = face.namespace.get(name)
        for result in (
            list(last_result.values()) if name in {"Out", "_oh"} and isinstance(last_result, dict) else (last_result,)
        ):
            if type(result) is Unstored:
                entry = face.session.registry.assets.get(result.key)
                if entry is not None:
                    _rerun_cell(face, result.key, entry.definition, name)
                    _replace_result(face, result, result_of(face, entry.definition))


def compute_unstored(
    face: Face, names: Iterable[str], assigned: Collection[str] = (), changing: Iterable[str] = ()
) -> None:
    """Run reused cells whose variables or last results are needed and were not stored.

    Parameters
    ----------
    names
        Names that the code to be run next reads.
    assigned, changing
        Names that this code binds, and names whose objects it may change. A reused cell with unstored variables that reads one of these names
        must run before the code.

    Raises
    ------
    UpstreamBudgetError
        If the runs are expected to take longer than ``Stepwell.upstream_budget``.
    """
    timeline, registered = face.timeline, face.session.registry.assets
    names = set(names)
    _compute_results(face, names)
    if not timeline.unstored:
        return
    pending = {name: key for name, key in timeline.unstored.items() if name not in face.namespace}
    needed = {name: pending[name] for name in names if name in pending}
    if not pending:
        return
    space = face.namespace
    changed = timeline.with_aliases(name for name in changing if can_change(space.get(name))).union(assigned)
    for key in dict.fromkeys(pending.values()):
        entry = registered.get(key)
        if entry is None:
            continue
        name = next((variable for variable, of in needed.items() if of == key), "")
        if name:
            _rerun_cell(face, key, entry.definition, name)
            continue
        name = next(
            (variable for variable, of in pending.items() if of == key and variable not in timeline.handles), ""
        )
        body = getattr(entry.definition.node, "body", None)
        reads = {*body.reads, *body.parameters} if isinstance(body, CellBody) else set()
        before = min(changed & reached_names(space, reads), default="")
        if name and before:
            _rerun_cell(face, key, entry.definition, name, f"{name} was not stored, and {before} is about to change")


def _rerun_cell(face: Face, key: str, definition: AssetsDefinition, name: str, why: str = "") -> None:
    """Run a reused cell, because one of its unstored variables is needed or will soon be impossible to compute."""
    with requesting(face.session.timeline, [definition], cell=True, only_unbound=True):
        states = face.session.states([definition])
        seconds = sum(state.seconds or 0.0 for state in states.values() if state.key == key)
        late = seconds > face.settings.upstream_budget
        if late and why:
            # No code needs it yet.
            return
        if late and face.interactive:
            raise UpstreamBudgetError(
                f"{name} is needed, but {key}, which assigns it, was reused and its value was not stored; {key} took {duration(seconds)} the last time",
                remedy=f"run the cell of {key} with -f",
            )
        face.say(f"{key}: runs again, because {why or f'{name} is needed and was not stored'}")
        with user_errors(face):
            face.session.materialize([definition], force=True)


def changed_text(definition: AssetsDefinition) -> str:
    """Return the part of a cell's output line about variables that plain cells had changed when the cell read them."""
    body = getattr(definition.node, "body", None)
    if not isinstance(body, CellBody) or not body.changed_variables:
        return ""
    return " · with " + ", ".join(
        f"your {name}{f' from {label}' if label else ''}" for name, label in body.changed_variables
    )


def _show_picture(face: Face, definition: AssetsDefinition, records: Sequence[StepRecord]) -> None:
    """Show the figure that a function returned in this run. Cells show their figures while they run; reused steps show recorded output."""
    last = asset_steps(definition)[-1]
    for record in records:
        if record.key == last.key and record.status == "executed" and not isinstance(last.op.body, CellBody):
            outputs = outputs_of(face, record)
            show_again([output for output in outputs if "image/png" in output.data][-1:])


def outputs_of(face: Face, record: StepRecord) -> tuple[CapturedOutput, ...]:
    """Return the recorded output and displays of a materialization."""
    item = record.materializations[0]
    return read_outputs(face.session.store.catalog, face.session.store.signer, item.run_id, item.step_key)


def finish_run(face: Face, result: Any) -> None:
    """Print the notices of a run, such as ``clean <- store (prepare.ipynb, ...)``, and bind its assets to free names.

    Names that are already bound follow the store anyway. The binding is for assets that Python code runs again after their cells failed.
    """
    for notice in result.notices:
        face.say(notice_text(notice))
    if result.run.kind == "assets":
        registered = face.session.registry.assets
        free = [
            key
            for key in result.run.targets
            if key in registered and variable_of(registered[key].definition, key) not in face.namespace
        ]
        try:
            bind(face, free, result)
        except ValueUnavailableError as error:
            # The run itself succeeded. Code that needs the value later computes it or raises an error with a remedy.
            face.say(error.what)


def bind_loadable(
    face: Face, keys: Sequence[str], result: RunResult, compute: Callable[[], RunResult], *, cell: bool = True
) -> RunResult:
    """Bind the variables of assets. If a reused value proves to be damaged, print a line and compute the value again.

    Parameters
    ----------
    compute
        Runs the assets without reusing their stored values.
    cell
        True if the cell of the assets is running.

    Returns
    -------
    RunResult
        The run that contains the values.
    """
    try:
        bind(face, keys, result, cell=cell)
    except ValueUnavailableError as error:
        if not any(step.status == "reused" for step in result.steps):
            raise
        face.say(f"{error.what}: computed again")
        with user_errors(face):
            result = compute()
        bind(face, keys, result, cell=cell)
    return result


def bind(face: Face, keys: Sequence[str], result: Any, *, cell: bool = True) -> None:
    """Bind the variables of assets to the values of the assets in a run.

    Parameters
    ----------
    cell
        True if the cell of the assets is running. Otherwise variables of the user are not overwritten, and a line tells how to load the value.
    """
    timeline = face.timeline
    for key in keys:
        entry = face.session.registry.assets.get(key)
        name = variable_of(entry.definition, key) if entry is not None else key.rpartition("/")[2]
        if entry is not None and face.namespace.get(name) is entry.definition:
            continue  # @asset in a plain cell: the name is bound to the definition
        item = _materialization(result, key)
        if item is None or item.value is None:
            continue
        bound = timeline.asset_of(name)
        if bound is not None and bound.key == key and bound.materialization == item.id:
            continue
        if not cell and not timeline.may_bind(name, item.step_key):
            if bound is None and timeline.bound_to(name) is None:
                face.say(f"{name} is your variable: stepwell.load({key!r}) returns the asset")
            continue
        # Bind the value even if the name is already bound to it, because it may have been changed in place.
        timeline.bind(name, key, item, result.value(key))
    timeline.refresh()


def variable_of(definition: Any, key: str) -> str:
    """Return the variable to which an asset is bound."""
    body = getattr(getattr(definition, "node", None), "body", None)
    if isinstance(body, CellBody) and body.variables:
        for asset_key, variable in zip(definition.keys, body.variables, strict=True):
            if str(asset_key) == key:
                return variable
    return key.rpartition("/")[2]


def _materialization(result: Any, key: str) -> Any:
    try:
        return result.materialization(key)
    except UnknownKeyError:  # an optional output that the step left out
        return None
