"""The run of an asset cell (register, materialize, bind the variables, display, print one line), and the display of exceptions.

If the user's code raises an exception, the traceback is shown without frames of Stepwell, below a line that names the failed step and its cell.
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
    """Make IPython show `error` without frames of Stepwell.

    IPython shows the lines that the method ``_render_traceback_`` of an exception returns. The lines are rendered here, because more frames of
    Stepwell are added to the traceback while the exception propagates. After the rendering, ``%debug`` starts in the innermost frame of the user.

    Parameters
    ----------
    shown_as
        A line that names the failed step, shown above the traceback; empty for no line.
    """
    if isinstance(error, StepwellError) or hasattr(error, "_render_traceback_"):
        return
    trace = _below_the_shell(user_traceback(error.__traceback__))
    try:
        lines = face.shell.InteractiveTB.structured_traceback(type(error), error, trace, tb_offset=0)
    except Exception:  # IPython then renders the whole traceback itself
        return
    if shown_as:
        lines = [shown_as, *lines]
    # An exception without a `__dict__` accepts no new attribute and is shown with all frames.
    with suppress(AttributeError, TypeError):
        error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]


def _below_the_shell(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without its first frames, in which IPython calls the magic. If all frames are IPython's, return the traceback unchanged."""
    frame = trace
    while frame is not None and _is_shells(frame):
        frame = frame.tb_next
    return user_traceback(frame) if frame is not trace and frame is not None else (frame or trace)


def _is_shells(trace: TracebackType) -> bool:
    name = trace.tb_frame.f_globals.get("__name__", "")
    return isinstance(name, str) and name.split(".")[0] in ("IPython", "ipykernel")


def failed_step(face: Face, result: Any) -> str:
    """Return a line about the first failed or cancelled step of a run, such as ``raw failed (cell 4)``; return an empty string if there is none."""
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
    """Register the definition of an asset cell, and materialize its assets unless a flag, such as ``--dry-run``, prevents this.

    Parameters
    ----------
    arguments
        The parsed flags of the cell.
    show_value
        True to display the value after the run, for a definition whose body does not display it.
    """
    name = " ".join(str(key) for key in definition.keys)
    own_keys = [step.key for step in asset_steps(definition)]
    with registry_restored(face), requesting(face.session.timeline, [definition], cell=True):
        face.session.registry.register(definition)
        if arguments.register or face.defines_only:
            face.say(f"{name}: registered")
            return
        # If no upstream asset is registered, no upstream step can run, so the states need not be computed before the run.
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
            # The cell and its plan must not see settings that the last run of the cell changed: a new kernel would not have them.
            face.timeline.world.undo_settings(key)
        with user_errors(face), displays_off(face, off=arguments.quiet), Progress(face, line):
            result = face.session.materialize([definition], force=arguments.force, show=own_keys)
    keys = [str(key) for key in definition.keys]
    result = bind_loadable(face, keys, result, lambda: face.session.materialize([definition], force=True, show=own_keys))
    finish(face, definition, result, quiet=arguments.quiet, show_value=show_value)
    leave_result(face, result_of(face, definition))


@contextmanager
def registry_restored(face: Face) -> Iterator[None]:
    """Undo the registrations of the ``with`` block if it raises an `InvalidDefinitionError`, for example because an upstream asset is missing.

    If a run began in the block, nothing is undone, because code of the user may have raised the error during the run. The error propagates in
    both cases.
    """
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
    """Raise `UpstreamBudgetError` if the last runs of the steps in `waiting` together took longer than ``Stepwell.upstream_budget``.

    Batch runs have no such limit.

    Parameters
    ----------
    name
        The name of the asset, for the message.
    waiting
        The states of the upstream steps that must run.
    """
    known = sum(state.seconds or 0.0 for state in waiting)
    budget = face.settings.upstream_budget
    if face.interactive and known > budget:
        raise UpstreamBudgetError(
            f"nothing was run, because the upstream steps of {name} took {duration(known)} the last time, more than Stepwell.upstream_budget ({duration(budget)})",
            where=upstream_line(name, waiting),
            remedy=f"run %materialize {name}, which has no limit",
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
    """Within the ``with`` block, if `off` is True, record the displays of steps without showing them."""
    before, face.displays.quiet = face.displays.quiet, off
    try:
        yield
    finally:
        face.displays.quiet = before


@contextmanager
def user_errors(face: Face) -> Iterator[None]:
    """Show an exception of the ``with`` block below the name of the failed step and without frames of Stepwell. The exception propagates."""
    before = face.session.last_run
    try:
        yield
    except BaseException as error:
        now = face.session.last_run
        present(face, error, shown_as=failed_step(face, now) if now is not before else "")
        raise


def finish(face: Face, definition: AssetsDefinition, result: Any, *, quiet: bool, show_value: bool) -> None:
    """After the run of an asset cell, show the recorded output of reused steps, display the value if needed, and print the line about the run.

    The variables of the assets must already be bound.

    Parameters
    ----------
    quiet
        True to show no rich output and no value; printed text is shown.
    show_value
        True to display the value, for a definition whose body does not display it.
    """
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
            face.say(f"{name} is not stored ({held}); each kernel that needs {name} computes it again")
    if records:
        line = run_line(" ".join(str(key) for key in definition.keys), records)
        face.say(line + changed_text(definition))


_LAST_RESULTS = ("_", "__", "___")
"""The names to which IPython binds the results of the last three cells."""


def result_of(face: Face, definition: AssetsDefinition) -> Any:
    """Return the value that IPython would bind to ``_`` as the result of an asset cell if the cell were a plain cell.

    Return None if the cell has no result. Return an `Unstored`, a placeholder, if the cell was reused and its result was not stored.
    """
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
    """Store `value`, the result of the running cell, in ``_``, ``__`` and ``Out``, like IPython does for a plain cell; do nothing for None."""
    if value is None:
        return
    hook = face.shell.displayhook
    hook.check_for_underscore()
    hook.update_user_ns(value)
    hook.fill_exec_result(value)
    face.timeline.note(Writer("step", "", ""), bound=_LAST_RESULTS)


def _replace_result(face: Face, old: Any, new: Any) -> None:
    """Replace `old`, the placeholder of a result that was not stored, by the result `new` in ``_``, ``__``, ``___`` and ``Out``."""
    hook, space = face.shell.displayhook, face.namespace
    outputs = space.get("_oh")
    holders: list[dict[Any, Any]] = [space, vars(hook), *([outputs] if isinstance(outputs, dict) else [])]
    for holder in holders:
        for name, value in list(holder.items()):
            if value is old:
                holder[name] = new


def _compute_results(face: Face, names: Iterable[str]) -> None:
    """Run each reused cell whose result was not stored, if a placeholder of the result is in one of the variables `names`, for example ``Out``."""
    for name in names:
        last_result = face.namespace.get(name)
        for result in list(last_result.values()) if name in {"Out", "_oh"} and isinstance(last_result, dict) else (last_result,):
            if type(result) is Unstored:
                entry = face.session.registry.assets.get(result.key)
                if entry is not None:
                    _rerun_cell(face, result.key, entry.definition, name)
                    _replace_result(face, result, result_of(face, entry.definition))


def compute_unstored(
    face: Face,
    names: Iterable[str],
    assigned: Collection[str] = (),
    changing: Iterable[str] = (),
    *,
    through: Collection[str] = (),
) -> None:
    """Before code runs, run the reused cells whose variables or results were not stored and are needed by the code.

    Parameters
    ----------
    names
        The names that the code reads.
    assigned, changing
        The names that the code binds, and the names whose objects the code may change in place. If a reused cell reads one of these names, the
        variables of the cell that were not stored are also computed now: after the change, the cell could not compute the same values.
    through
        Further names that functions of the notebook read, if the code calls them. Variables above the budget are not computed for these names.

    Raises
    ------
    UpstreamBudgetError
        In interactive use, if a needed cell took longer the last time than ``Stepwell.upstream_budget``.
    """
    timeline, registered = face.timeline, face.session.registry.assets
    names = set(names)
    _compute_results(face, names)
    names.update(through)
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
        wanted = sorted((variable in through, variable) for variable, of in needed.items() if of == key)
        if wanted:
            only_through, name = wanted[0]
            _rerun_cell(face, key, entry.definition, name, is_needed=not only_through)
            continue
        name = next((variable for variable, of in pending.items() if of == key and variable not in timeline.handles), "")
        body = getattr(entry.definition.node, "body", None)
        reads = {*body.reads, *body.parameters} if isinstance(body, CellBody) else set()
        before = min(changed & reached_names(space, reads), default="")
        if name and before:
            _rerun_cell(
                face, key, entry.definition, name, f"{name} was not stored, and {before} is about to change", is_needed=False
            )


def names_of_inputs(face: Face) -> set[str]:
    """Return the names that refer to assets where a cell reads them. If such a name is unbound, the engine computes the asset as an input of the step.

    The name of an asset, the last part of its key, is left out if a reused cell left a variable of this name unbound that does not have the value
    of the asset.
    """
    registered, unstored = face.session.registry.assets, face.timeline.unstored
    names = set()
    for key, entry in registered.items():
        name = key.rpartition("/")[2]
        left = registered.get(unstored.get(name, ""))
        is_own = left is not None and left.definition is entry.definition and variable_of(entry.definition, key) == name
        if name not in unstored or is_own:
            names.add(name)
    return names


def _rerun_cell(face: Face, key: str, definition: AssetsDefinition, name: str, why: str = "", *, is_needed: bool = True) -> None:
    """Run a reused cell, because its variable `name`, which was not stored, is needed or could not be computed later.

    Parameters
    ----------
    key, definition
        The key of an asset of the cell, and the definition of the cell.
    why
        The reason to run the cell, for the line that is printed; empty if the reason is that code reads the variable.
    is_needed
        False if the code that is about to run may not need the variable. The cell is then not run if it took longer the last time than
        ``Stepwell.upstream_budget``.

    Raises
    ------
    UpstreamBudgetError
        If `is_needed` is True, but the cell took longer the last time than ``Stepwell.upstream_budget``. Batch runs have no such limit.
    """
    with requesting(face.session.timeline, [definition], cell=True, only_unbound=True):
        states = face.session.states([definition])
        seconds = sum(state.seconds or 0.0 for state in states.values() if state.key == definition.step_key)
        late = seconds > face.settings.upstream_budget
        if late and not is_needed:
            return
        if late and face.interactive:
            raise UpstreamBudgetError(
                f"{name} is needed, but its value was not stored, and the cell of {key}, which computes {name}, took {duration(seconds)} the last time",
                remedy=f"run the cell of {key} with the flag -f, which computes {name} again",
            )
        face.say(f"{key}: runs again, because {why or f'{name} is needed and was not stored'}")
        with user_errors(face):
            face.session.materialize([definition], force=True)


def changed_text(definition: AssetsDefinition) -> str:
    """Return text for the line about a run: the variables of assets that the cell read after other cells had changed them.

    Return an empty string if there are none.
    """
    body = getattr(definition.node, "body", None)
    if not isinstance(body, CellBody) or not body.changed_variables:
        return ""
    return " · with " + ", ".join(f"your {name}{f' from {label}' if label else ''}" for name, label in body.changed_variables)


def _show_picture(face: Face, definition: AssetsDefinition, records: Sequence[StepRecord]) -> None:
    """Show the last figure that the last step of a definition displayed, if this step was executed in this run and its body is not a cell.

    A cell shows its figures itself. For a reused step, `finish` has already shown the recorded output, which contains the figures.
    """
    last = asset_steps(definition)[-1]
    for record in records:
        if record.key == last.key and record.status == "executed" and not isinstance(last.op.body, CellBody):
            outputs = outputs_of(face, record)
            show_again([output for output in outputs if "image/png" in output.data][-1:])


def outputs_of(face: Face, record: StepRecord) -> tuple[CapturedOutput, ...]:
    """Return the recorded output (printed text and rich output) of the step that `record` describes. `record` must have a materialization."""
    item = record.materializations[0]
    return read_outputs(face.session.store.catalog, face.session.store.signer, item.run_id, item.step_key)


def finish_run(face: Face, result: Any) -> None:
    """After a run, print its notices, such as ``clean <- store (prepare.ipynb, ...)``, and bind unbound variables of the run's target assets.

    A variable is unbound, for example, if the cell of its asset failed and Python code has now materialized the asset. Variables that are bound to
    an earlier value of their asset are not rebound here, but by the timeline.
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
            # The run succeeded, although the value cannot be loaded. Code that needs the value later computes it, or raises an error with a remedy.
            face.say(error.what)


def bind_loadable(
    face: Face, keys: Sequence[str], result: RunResult, compute: Callable[[], RunResult], *, cell: bool = True
) -> RunResult:
    """Bind the variables of assets to the values of a run. If a reused value cannot be loaded, print a line and compute the assets again.

    Parameters
    ----------
    keys
        The keys of the assets.
    result
        The result of the run.
    compute
        Runs the assets without reusing their stored values.
    cell
        True if the cell that defines the assets is running. If False, `bind` does not overwrite variables of the user.

    Returns
    -------
    RunResult
        The result of the run whose values are bound: `result`, or that of `compute`.

    Raises
    ------
    ValueUnavailableError
        If a value cannot be loaded, and no step was reused, so that computing the assets again would not help.
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
    """Bind the variables of the assets `keys` to the values of a run.

    Parameters
    ----------
    result
        The result of the run.
    cell
        True if the cell that defines the assets is running. If False, variables that the user has bound are not overwritten; instead, a line says
        how to load the value of the asset.
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
                face.say(
                    f"your variable {name} was not overwritten by the asset {key}: stepwell.load({key!r}) returns the value of the asset"
                )
            continue
        # Bind the value even if the variable is bound to it already, because the object may have been changed in place.
        timeline.bind(name, key, item, result.value(key))
    timeline.refresh()


def variable_of(definition: Any, key: str) -> str:
    """Return the variable to which the value of the asset `key` is bound: the variable that its cell names, if any, else the last part of the key."""
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
