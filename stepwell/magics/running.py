"""Runs an asset's cell: register, bring up to date, bind, display, one line; and shows exceptions of the user's code.

A traceback of the user's code is shown without frames of the engine, under its asset and cell.
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
    """Make IPython show an exception without our frames.

    IPython asks an exception for ``_render_traceback_``. The traceback is rendered now, since frames of ours are added again
    while the exception travels on; rendering also sets where ``%debug`` begins: in the user's innermost frame.

    Parameters
    ----------
    shown_as
        Which step failed, in words; stands above the traceback.
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
    # An exception class with slots takes no attribute: it is shown with all frames.
    with suppress(AttributeError, TypeError):
        error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]


def _below_the_shell(trace: TracebackType | None) -> TracebackType | None:
    """Skip the frames of IPython that led to the magic."""
    found = trace
    while found is not None and _is_shells(found):
        found = found.tb_next
    return user_traceback(found) if found is not trace and found is not None else (found or trace)


def _is_shells(trace: TracebackType) -> bool:
    name = trace.tb_frame.f_globals.get("__name__", "")
    return isinstance(name, str) and name.split(".")[0] in ("IPython", "ipykernel")


def failed_step(face: Face, result: Any) -> str:
    """Return which step of a run failed and where it is defined: ``raw failed (cell 4)``."""
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
    """Register an asset cell's definition and do what its flags say.

    Parameters
    ----------
    show_value
        Whether the value is displayed after the run: for cells whose body displays nothing by itself.
    """
    name = " ".join(str(key) for key in definition.keys)
    own = [step.key for step in asset_steps(definition)]
    with registry_kept(face), requesting(face.session.timeline, [definition], cell=True):
        face.session.registry.register(definition)
        if arguments.register or face.defines_only:
            face.say(f"{name}: registered")
            return
        # Planning twice is spared where nothing upstream can have to run.
        registered = face.session.registry.assets
        has_upstream = any(str(key) in registered for key in definition.upstream_keys)
        states = face.session.states([definition]) if arguments.dry_run or has_upstream else {}
        if arguments.dry_run:
            _say_what_would_run(name, states, own)
            return
        waiting = [state for key, state in states.items() if key not in own and state.must_run]
        if waiting:
            check_budget(face, name, waiting)
        line = upstream_line(name, waiting) if waiting else ""
        for key in own:
            # As in a new kernel, the cell and what is planned for it find settings without its own.
            face.timeline.world.undo_settings(key)
        with users_errors(face), displays_off(face, off=arguments.quiet), Progress(face, line):
            result = face.session.materialize([definition], force=arguments.force, show=own)
    keys = [str(key) for key in definition.keys]
    result = bind_loadable(face, keys, result, lambda: face.session.materialize([definition], force=True, show=own))
    finish(face, definition, result, quiet=arguments.quiet, show_value=show_value)
    leave_result(face, result_of(face, definition))


@contextmanager
def registry_kept(face: Face) -> Iterator[None]:
    """Put the registry back as it was if what was registered cannot be planned: a cycle, a missing upstream."""
    registry = face.session.registry
    assets, jobs, run = dict(registry.assets), dict(registry.jobs), face.session.last_run
    try:
        yield
    except InvalidDefinitionError:
        if face.session.last_run is not run:
            raise  # the user's own code raised it
        changed = tuple({*registry.assets, *assets, *registry.jobs, *jobs})
        registry.assets.clear()
        registry.assets.update(assets)
        registry.jobs.clear()
        registry.jobs.update(jobs)
        if registry.changed is not None:
            registry.changed(changed)
        raise


def check_budget(face: Face, name: str, waiting: Sequence[StepState]) -> None:
    """Raise `UpstreamBudgetError` if upstream work is known to take longer than a cell may start by itself."""
    known = sum(state.seconds or 0.0 for state in waiting)
    budget = face.settings.upstream_budget
    if face.interactive and known > budget:
        raise UpstreamBudgetError(
            f"{upstream_line(name, waiting)}: nothing was run",
            remedy=f"upstream took {duration(known)} the last time, more than Stepwell.upstream_budget ({duration(budget)}): %materialize {name} runs it",
        )


def _say_what_would_run(name: str, states: dict[str, StepState], own: Sequence[str]) -> None:
    ahead = [state for state in states.values() if state.must_run]
    if not ahead:
        say(f"{name}: fresh, nothing would run")
        return
    for state in ahead:
        facts = [state.state, *(reason.text for reason in state.reasons[:1])]
        if state.seconds:
            facts.append(f"last {duration(state.seconds)}")
        say(
            f"{'would run' if state.key in own else 'first'} {state.key} ({'; '.join(dict.fromkeys(fact for fact in facts if fact))})"
        )


@contextmanager
def displays_off(face: Face, *, off: bool) -> Iterator[None]:
    """Only record what steps display."""
    before, face.displays.quiet = face.displays.quiet, off
    try:
        yield
    finally:
        face.displays.quiet = before


@contextmanager
def users_errors(face: Face) -> Iterator[None]:
    """Show exceptions of users' code without our frames, with the step that failed."""
    before = face.session.last_run
    try:
        yield
    except BaseException as error:
        now = face.session.last_run
        present(face, error, shown_as=failed_step(face, now) if now is not before else "")
        raise


def finish(face: Face, definition: AssetsDefinition, result: Any, *, quiet: bool, show_value: bool) -> None:
    """Show again what reused steps had shown, and say what happened; the names are bound."""
    own = {step.key for step in asset_steps(definition)}
    records = [record for record in result.steps if record.key in own]
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
        for each in record.not_kept:
            held = each.partition(": ")[2]
            face.say(f"{name} is not stored ({held}): computed again in a kernel that needs it")
    if records:
        line = run_line(" ".join(str(key) for key in definition.keys), records)
        face.say(line + changed_text(definition))


_LAST_RESULTS = ("_", "__", "___")
"""Names under which the shell keeps the last results."""


def result_of(face: Face, definition: AssetsDefinition) -> Any:
    """Return what a plain cell would leave as the shell's last result, or None if it would leave none."""
    body = getattr(definition.node, "body", None)
    found = None
    for step in asset_steps(definition):
        found = face.timeline.results.pop(step.key, None)
    if not isinstance(body, CellBody) or not body.result:
        return found
    unstored = face.timeline.unstored.get(body.result)
    if unstored is not None and body.result not in face.namespace:
        return Unstored(unstored)
    return face.namespace.get(body.result, getattr(builtins, body.result, None))


def leave_result(face: Face, value: Any) -> None:
    """Have the shell keep the result of the cell that runs, as it does for a plain cell: in ``_``, ``__`` and ``Out``."""
    if value is None:
        return
    hook = face.shell.displayhook
    hook.check_for_underscore()
    hook.update_user_ns(value)
    hook.fill_exec_result(value)
    face.timeline.note(Writer("step", "", ""), bound=_LAST_RESULTS)


def _replace_result(face: Face, old: Any, new: Any) -> None:
    """Put a result in the place of what stood for it."""
    hook, space = face.shell.displayhook, face.namespace
    outputs = space.get("_oh")
    holders: list[dict[Any, Any]] = [space, vars(hook), *([outputs] if isinstance(outputs, dict) else [])]
    for holder in holders:
        for name, value in list(holder.items()):
            if value is old:
                holder[name] = new


def _compute_results(face: Face, names: Iterable[str]) -> None:
    """Run reused cells again whose last results are needed and were not stored."""
    for name in names:
        found = face.namespace.get(name)
        for each in list(found.values()) if name in {"Out", "_oh"} and isinstance(found, dict) else (found,):
            if type(each) is Unstored:
                entry = face.session.registry.assets.get(each.key)
                if entry is not None:
                    _run_again(face, each.key, entry.definition, name)
                    _replace_result(face, each, result_of(face, entry.definition))


def compute_unstored(
    face: Face, names: Iterable[str], assigned: Collection[str] = (), changing: Iterable[str] = ()
) -> None:
    """Run reused cells again whose variables, or last results, are needed and were not stored.

    Parameters
    ----------
    names
        Names that the code reads which is about to run.
    assigned, changing
        Names that it binds, and whose objects it may change: what a reused cell reads must still be as it was when that cell runs.

    Raises
    ------
    UpstreamBudgetError
        If that is known to take longer than a cell may start by itself.
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
        name = next((each for each, of in needed.items() if of == key), "")
        if name:
            _run_again(face, key, entry.definition, name)
            continue
        name = next((each for each, of in pending.items() if of == key and each not in timeline.handles), "")
        body = getattr(entry.definition.node, "body", None)
        reads = {*body.reads, *body.parameters} if isinstance(body, CellBody) else set()
        before = min(changed & reached_names(space, reads), default="")
        if name and before:
            _run_again(face, key, entry.definition, name, f"{name} was not stored, and {before} is about to change")


def _run_again(face: Face, key: str, definition: AssetsDefinition, name: str, why: str = "") -> None:
    """Run a cell whatever is stored of it, because something that it leaves is needed, or may be, and was not stored."""
    with requesting(face.session.timeline, [definition], cell=True, only_unbound=True):
        states = face.session.states([definition])
        seconds = sum(state.seconds or 0.0 for state in states.values() if state.key == key)
        late = seconds > face.settings.upstream_budget
        if late and why:
            # Nothing needs it yet.
            return
        if late and face.interactive:
            raise UpstreamBudgetError(
                f"{name} is needed, and {key}, which assigns it, was reused without it: its value is not stored",
                remedy=f"{key} took {duration(seconds)} the last time: run its cell with -f",
            )
        face.say(f"{key}: runs again, because {why or f'{name} is needed and was not stored'}")
        with users_errors(face):
            face.session.materialize([definition], force=True)


def changed_text(definition: AssetsDefinition) -> str:
    """Return what the line of a cell says of variables that plain cells changed before it read them."""
    body = getattr(definition.node, "body", None)
    if not isinstance(body, CellBody) or not body.changed:
        return ""
    return " · with " + ", ".join(f"your {name}{f' from {label}' if label else ''}" for name, label in body.changed)


def _show_picture(face: Face, definition: AssetsDefinition, records: Sequence[StepRecord]) -> None:
    """Show the picture of a figure that a function has just made; a cell's is shown while it runs, a reused one with what its step displayed."""
    last = asset_steps(definition)[-1]
    for record in records:
        if record.key == last.key and record.status == "executed" and not isinstance(last.op.body, CellBody):
            outputs = outputs_of(face, record)
            show_again([each for each in outputs if "image/png" in each.data][-1:])


def outputs_of(face: Face, record: StepRecord) -> tuple[CapturedOutput, ...]:
    """Return what a step printed and displayed when it made its materialization."""
    item = record.materializations[0]
    return read_outputs(face.session.store.catalog, face.session.store.signer, item.run_id, item.step_key)


def after_run(face: Face, result: Any) -> None:
    """Say what was read from the store, ``clean <- store (prepare.ipynb, ...)``, and bind assets of cells whose names are free.

    Names that are bound already follow by themselves; this is for a run that was asked for in Python after a failure.
    """
    for each in result.notices:
        face.say(notice_text(each))
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
            # The run succeeded: code that needs the value computes it again, or gets an error with the remedy.
            face.say(error.what)


def bind_loadable(
    face: Face, keys: Sequence[str], result: RunResult, again: Callable[[], RunResult], *, cell: bool = True
) -> RunResult:
    """Bind the names of assets; what was to be reused and turns out to be damaged counts as missing: it is computed again, and a line says so.

    Parameters
    ----------
    again
        Runs the assets whatever is stored of them.
    cell
        Whether the assets' own cell runs.

    Returns
    -------
    RunResult
        The run that has the values.
    """
    try:
        bind(face, keys, result, cell=cell)
    except ValueUnavailableError as error:
        if not any(step.status == "reused" for step in result.steps):
            raise
        face.say(f"{error.what}: computed again")
        with users_errors(face):
            result = again()
        bind(face, keys, result, cell=cell)
    return result


def bind(face: Face, keys: Sequence[str], result: Any, *, cell: bool = True) -> None:
    """Bind the variables of assets to the values that they have in a run.

    Parameters
    ----------
    cell
        Whether the assets' own cell runs; else variables of the user are left alone, and a line says how to load the value.
    """
    timeline = face.timeline
    for key in keys:
        entry = face.session.registry.assets.get(key)
        name = variable_of(entry.definition, key) if entry is not None else key.rpartition("/")[2]
        if entry is not None and face.namespace.get(name) is entry.definition:
            continue  # with @asset in a plain cell the name is the definition
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
        # Also where it is bound already: the variable may have been changed in place.
        timeline.bind(name, key, item, result.value(key))
    timeline.refresh()


def variable_of(definition: Any, key: str) -> str:
    """Return the variable that an asset is bound to."""
    body = getattr(getattr(definition, "node", None), "body", None)
    if isinstance(body, CellBody) and body.variables:
        for own, variable in zip(definition.keys, body.variables, strict=True):
            if str(own) == key:
                return variable
    return key.rpartition("/")[2]


def _materialization(result: Any, key: str) -> Any:
    try:
        return result.materialization(key)
    except UnknownKeyError:  # an optional output that the step left out
        return None
