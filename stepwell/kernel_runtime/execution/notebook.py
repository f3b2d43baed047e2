"""The engine's interface to the live cells of a notebook.

`StoredCells` checks whether the stored execution of a cell can be restored in this kernel. `NotebookCells` prepares a run of a cell, stores the
effects of the run, and restores the effects when the step is reused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.errors import NamesReassignedError, UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.execution.addresses import code_in, objects_in, outdated_code, reached_names
from stepwell.kernel_runtime.execution.contents import is_closed, is_handle
from stepwell.kernel_runtime.execution.in_process import Outcome
from stepwell.kernel_runtime.execution.live_cells import ENVIRONMENT, LiveRun, coded_inputs
from stepwell.kernel_runtime.execution.restoration import (
    FilesToRestore,
    Restoration,
    compare_files,
    left_states,
    lost_file,
    restore_files,
    taken_files,
)
from stepwell.kernel_runtime.execution.timeline import Closed, Timeline, Unstored
from stepwell.kernel_runtime.execution.world import Seeds, Writer, set_stream
from stepwell.kernel_runtime.planning.decision import Kind
from stepwell.kernel_runtime.planning.plan import PlanOutput, PlanStep
from stepwell.kernel_runtime.reads.readers import seeded
from stepwell.kernel_runtime.records.materializations import (
    NOTEBOOK,
    RESULT,
    Effects,
    Linked,
    Materialization,
    Read,
    StoredValue,
)
from stepwell.kernel_runtime.records.runs import Notify, notice
from stepwell.kernel_runtime.store.signing import vouches
from stepwell.kernel_runtime.versions import library_state
from stepwell.kernel_runtime.versions.encode import ATOMS
from stepwell.kernel_runtime.versions.environment import environment_copy, set_variable

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

_SHARE = 0.05
"""The share of the step's duration that may be spent on storing variables that are not outputs."""
_ALWAYS = 0.05
"""The number of seconds that may be spent on storing variables that are not outputs, however short the step was."""
_RATE = 1e9
"""The assumed number of bytes that can be stored per second."""


@dataclass(frozen=True, slots=True)
class _Reuse:
    """A stored execution of a cell that can be reused in this kernel."""

    step: PlanStep
    body: CellBody
    materializations: tuple[Materialization, ...]
    effects_record: Materialization | None
    """The materialization with the effects of the execution on the notebook; None if the execution only produced values."""
    effects: Effects
    cell_runs: bool
    """True if the cell of the step runs, so that the step binds all of its names."""
    is_repeated: bool
    """True if this execution last brought the step up to date in this kernel, so that the notebook already has its effects."""
    skips_objects: bool
    """True if the contents of objects are not restored, because variables that the step reads have changed since the step was brought up to date."""
    unstored_names: list[str]
    """The variables of the step whose values are not stored."""
    files: FilesToRestore
    """The files that the reuse writes, creates or removes."""


def _is_live(step: PlanStep) -> bool:
    """Return True for the step of a live cell."""
    return isinstance(step.op.body, CellBody) and step.op.body.runs_in_notebook


class StoredCells:
    """Checks whether the stored executions of live cells can be restored in this kernel. No method changes the notebook.

    Parameters
    ----------
    timeline, store
        The timeline and the store of the session.
    strict
        True if every live cell fails when its value cannot be stored; False if only cells with the option ``--stored`` do.
    """

    def __init__(self, timeline: Timeline, store: ValueStore, *, strict: bool = False) -> None:
        self._timeline = timeline
        self._store = store
        self._strict = strict
        self.hit: _Reuse | None = None
        """The execution that the last call of `obstacle` examined. None if the call found an obstacle, or if there is nothing to restore."""

    def must_be_stored(self, step: PlanStep) -> bool:
        """Return True if the step of a cell must fail when its value cannot be stored."""
        return isinstance(step.op.body, CellBody) and (self._strict or step.op.body.must_be_stored)

    def obstacle(self, step: PlanStep, materializations: tuple[Materialization, ...], kind: Kind) -> str:
        """Return the reason why the effects of an execution cannot be restored; empty if they can, or if there is nothing to restore.

        If there is something to restore and it can be restored, the attribute `hit` is set to the execution, otherwise to None.

        Parameters
        ----------
        materializations
            The materializations of the execution.
        kind
            Why the request includes the step. There is nothing to restore if the cell of the step does not run and the notebook already has the
            effects of this execution.
        """
        self.hit = None
        if not _is_live(step):
            return ""
        body, timeline = step.op.body, self._timeline
        assert isinstance(body, CellBody)
        is_repeated = timeline.has_brought(step.key, materializations[0])
        if is_repeated and kind != "cell":
            return ""
        effects_record = next((item for item in materializations if item.output == NOTEBOOK), None)
        if effects_record is None and any(item.effects for item in materializations):
            return "the record of the step's changes to the notebook is missing"
        # The signature is verified before anything in the record is used.
        if effects_record is not None and not self._is_trusted(effects_record, materializations):
            return "the record of the step's changes to the notebook is not signed with your key"
        effects = Effects.from_text(effects_record.effects) if effects_record is not None else Effects()
        unstored = _unstored(step, materializations, effects)
        skips_objects = is_repeated and step.key in timeline.pinned
        obstacle = self._unrestorable(
            step, materializations, effects, unstored, is_repeated=is_repeated, skips_objects=skips_objects
        )
        if obstacle:
            return obstacle
        cell_runs = kind == "cell"
        files = compare_files(
            effects.files,
            timeline.project,
            self._was_written,
            cell_runs=cell_runs,
        )
        if not files.obstacle:
            self.hit = _Reuse(
                step,
                body,
                materializations,
                effects_record,
                effects,
                cell_runs,
                is_repeated,
                skips_objects,
                unstored,
                files,
            )
        return files.obstacle

    def _unrestorable(
        self,
        step: PlanStep,
        materializations: tuple[Materialization, ...],
        effects: Effects,
        unstored: list[str],
        *,
        is_repeated: bool,
        skips_objects: bool,
    ) -> str:
        """Return the reason why the values and effects of an execution, apart from files, cannot be restored; empty if they can."""
        timeline = self._timeline
        values = [name for name in unstored if name not in effects.handles]
        opened = [name for name in effects.handles if name not in effects.closed] if is_repeated else []
        used = [name for name in opened if timeline.is_handle_used(step.key, name)]
        if used or (values and is_repeated and timeline.is_touched(step.key, values)):
            return f"the variable {[*used, *values][0]} is not stored and may have changed since the step ran"
        if effects.lost and not (
            is_repeated and timeline.is_left(step.key) and (skips_objects or not timeline.is_touched(step.key, effects.lost))
        ):
            return f"the changes to {', '.join(effects.lost)} cannot be restored: the step runs once in every kernel"
        body = step.op.body
        assert isinstance(body, CellBody)
        shared = [name for name in effects.lost if name in effects.unstored and timeline.may_share(name)]
        if shared and not skips_objects and timeline.is_bound_since(step.key, {*body.reads, *body.parameters}):
            return f"the variable {shared[0]} is not stored, and a variable that it may share objects with was bound again"
        by_text = {read.name for read in materializations[0].reads if read.kind == "name"}
        own = [name for name in values if name in body.reads or name in by_text]
        if own and not is_repeated:
            # The reuse would unbind the variable, and the step could not compute it later.
            return f"the variable {own[0]} is not stored, and the step needs the value that it had before"
        if not is_repeated and not body.kept_variables.isdisjoint(effects.unstored):
            name = min(body.kept_variables.intersection(effects.unstored))
            return f"the variable {name}, which --keep names, is not stored"
        if self.must_be_stored(step) and any(item.value is None for item in materializations if item.output != NOTEBOOK):
            return "the value of the step is not stored"
        return ""

    def _is_trusted(self, effects_record: Materialization, materializations: tuple[Materialization, ...]) -> bool:
        """Return True if the record of a step's effects can be trusted.

        The record `effects_record` must be signed with this user's key, and all records of the execution must have the same reads, inputs and code version.
        """
        return vouches(self._store.signer, effects_record) and all(
            (item.reads, item.inputs, item.code_version)
            == (effects_record.reads, effects_record.inputs, effects_record.code_version)
            for item in materializations
        )

    def _was_written(self, path: str, digest: str) -> bool:
        """Return True if a step, in this kernel or in an earlier run, left the file at `path` with a content of this digest."""
        here = self._timeline.world.files.get(path)
        return (here is not None and here[0] == digest) or any(digest == state for state, _ in left_states(path, self._store))


_Before = tuple[library_state.Snapshot, dict[str, str]]
"""The settings of libraries and of the process, and the environment variables, before a step was reused."""
_WITH_VARIABLE = re.compile(r"\bas\s+(\w+)\s*[:,)]")
"""Matches the variable of a ``with`` statement."""


def _unstored(step: PlanStep, materializations: tuple[Materialization, ...], effects: Effects) -> list[str]:
    """Return the names of the variables that an execution of a live cell assigned, but whose values were not stored."""
    body = step.op.body
    assert isinstance(body, CellBody)
    lacking = {item.output for item in materializations if item.value is None and item.output != NOTEBOOK}
    mine = [name for name, output in zip(body.variables, step.outputs, strict=False) if output.name in lacking]
    return [*mine, *[name for name in effects.unstored if name != RESULT]]


def _has_code(value: StoredValue | None) -> bool:
    """Return True if a stored value contains functions of the notebook or instances of its classes."""
    return value is not None and any(name.startswith("__main__.") for name, _ in value.classes)


def effects_output(step: PlanStep) -> PlanOutput:
    """Return the output of a step that contains its effects on the notebook."""
    return PlanOutput(NOTEBOOK, f"{step.address}:{NOTEBOOK}", None, has_value=True, required=False)


class NotebookCells:
    """Prepares, records and reuses the live cells of one run of the engine.

    Parameters
    ----------
    timeline, store
        The timeline and the store of the session.
    seeds
        The seeds of the random generators in this run.
    notify
        Called with each notice for the user.
    look
        Calls a function that runs code of the user's objects, and returns its result; an interrupt ends the function (`InterruptGuard.look`).
    strict
        True if every live cell fails when its value cannot be stored; False if only cells with the option ``--stored`` do.

    Attributes
    ----------
    stored_cells
        Checks whether stored executions of these cells can be restored.
    """

    def __init__(
        self,
        timeline: Timeline,
        store: ValueStore,
        seeds: Seeds,
        notify: Notify,
        look: Callable[[Callable[[], Any]], Any],
        *,
        strict: bool = False,
    ) -> None:
        self.stored_cells = StoredCells(timeline, store, strict=strict)
        self._look = look
        self._seeds = seeds
        self._timeline = timeline
        self._store = store
        self._notify = notify

    is_live = staticmethod(_is_live)

    def is_own(self, step: PlanStep) -> bool:
        """Return True if the user asked for this step itself: the request names the step, or the cell of the step runs."""
        return not self._timeline.is_pulled(step.key)

    def is_cell(self, step: PlanStep) -> bool:
        """Return True if the cell of the step runs.

        Then the step binds all of its names. Otherwise it does not rebind names that the user or other cells have bound.
        """
        return self._timeline.kind(step.key) == "cell"

    def changed_since(self, step: PlanStep) -> tuple[str, str]:
        """Return the result of `Timeline.changed_since` for a step: descriptions of the state that the step read, and of the present state.

        If the user asked for the step itself (`is_own`), return two empty strings.
        """
        return ("", "") if self.is_own(step) else self._timeline.changed_since(step.key)

    # -- a run

    def check(self, step: PlanStep) -> None:
        """Check that a step reads the same state as when its cell ran. Nothing is checked if the user asked for the step itself (`is_own`).

        Raises
        ------
        NamesReassignedError
            If other cells have since changed variables or files that the step reads, or if a variable has lost a change that was made before the
            cell ran.
        """
        if self.is_own(step):
            return
        body = step.op.body
        assert isinstance(body, CellBody)
        for name, label in body.changed_variables:
            if self._timeline.asset_of(name) is not None:
                # Other labels are the key of a step, or do not say which cell it is.
                cell = f"cell {label}" if label.startswith("[") else f"the cell that changes {name}"
                raise NamesReassignedError(
                    f"{step.key!r} needs the change that {cell} made to {name}, but {name} was set back to the value of its asset later, and {cell} has not run after that",
                    where=step.where,
                    remedy=f"run {cell}, and then the cell of {step.key}",
                )
        before, now = self._timeline.changed_since(step.key)
        if before:
            raise NamesReassignedError(
                f"{step.key!r} was not run, because other cells have changed what it reads: it was computed with {before} ({now})",
                where=step.where,
                remedy=f"run the cells that assign or write what the step reads, and then the cell of {step.key}",
            )

    def has_input(self, name: str, item: Materialization) -> bool:
        """Return True if the variable `name` of the notebook still has the value of the materialization `item`, not changed by any cell or step."""
        bound = self._timeline.asset_of(name)
        if bound is None or bound.key != item.key:
            return False
        return bound.data_version == item.data_version if item.data_version else bound.materialization == item.id

    def has_older(self, name: str, item: Materialization) -> bool:
        """Return True if the variable `name` of the notebook has the unchanged value of another materialization of the asset of `item`."""
        bound = self._timeline.asset_of(name)
        return bound is not None and bound.key == item.key and not self.has_input(name, item)

    def has_value(self, key: str, item: Materialization) -> bool:
        """Return True if the value of `item` still exists in this kernel.

        `item` is a materialization of the asset `key`, and its value could not be stored.
        """
        return self._timeline.alive(key, item) is not None

    def value(self, key: str) -> Any:
        """Return the value of an asset that could not be stored and exists only in this kernel.

        Raises
        ------
        ValueUnavailableError
            If the value no longer exists.
        """
        value = self._timeline.alive(key)
        if value is None:
            raise ValueUnavailableError(
                f"the value of {key!r} is not stored, and no variable has it any more", remedy=f"run the cell of {key}"
            )
        return value

    def begin(self, step: PlanStep, arguments: Mapping[str, Any], materializations: Mapping[str, Materialization]) -> LiveRun:
        """Prepare the run of a cell's body: bind those inputs that the notebook does not have, and note the state that the body may change.

        If an exception prevents the run, for example an interrupt, the variables of the notebook are bound as before.

        Parameters
        ----------
        arguments
            The values of inputs that must be bound, by name.
        materializations
            The materializations of the inputs, by value key.
        """
        space = self._timeline.namespace
        before = dict(space)
        try:
            return self._begin(step, arguments, materializations)
        except BaseException:
            for name in space.keys() - before.keys():
                del space[name]
            space.update(before)
            raise

    def _own_inputs(
        self, step: PlanStep, arguments: Mapping[str, Any], materializations: Mapping[str, Materialization]
    ) -> dict[str, Materialization]:
        """Return the loaded inputs whose variables keep the values after the run, because they are unbound or have an older value of the same asset.

        The result maps the name of each of these inputs to the materialization of its asset.
        """
        timeline = self._timeline
        own: dict[str, Materialization] = {}
        may_rebind = self.is_cell(step) and not timeline.binds_only_unbound
        for given in step.inputs:
            item = materializations.get(given.keys[0]) if given.keys and not given.fan_in else None
            if item is None or given.name not in arguments:
                continue
            bound = timeline.asset_of(given.name) if may_rebind else None
            if given.name not in timeline.namespace or (bound is not None and bound.key == item.key):
                own[given.name] = item
        return own

    def _bind_inputs(self, run: LiveRun, bound: Collection[str]) -> None:
        """After a body has run, let the variables of `_own_inputs` keep their loaded values, except variables that the body has bound (`bound`)."""
        timeline, space = self._timeline, self._timeline.namespace
        for name, item in run.take_own_inputs(bound).items():
            if name in timeline.unstored:
                # A reused cell left this variable unbound. Its value is computed when a plain cell needs the variable.
                del space[name]
            else:
                timeline.bind(name, item.key, item, space[name])

    def _begin(self, step: PlanStep, arguments: Mapping[str, Any], materializations: Mapping[str, Materialization]) -> LiveRun:
        body = step.op.body
        assert isinstance(body, CellBody)
        space = self._timeline.namespace
        self._timeline.look_before(step.key, body.bound_names & body.reads)
        self._timeline.world.undo_settings(step.key)
        names = {*body.reads, *body.parameters}
        timeline = self._timeline
        code = code_in([arguments.get(name, space.get(name)) for name in coded_inputs(step, materializations)])
        through = reached_names(space, (), code) if code else set()
        reached = reached_names(space, names) | through
        run = LiveRun(self._timeline, body, reached, arguments, self._own_inputs(step, arguments, materializations))
        if body.changes is not None:
            functions = [name for name in names if callable(arguments.get(name, space.get(name)))]
            suspects = body.changes | through | (reached_names(space, functions) - set(functions))
            run.suspects = suspects.difference(step.op.ignore)
        run.reads = tuple(
            Read("given", name, timeline.digest_of(name))
            for name in sorted(through - body.reads - set(body.parameters))
            if name in run.space_before and type(run.space_before[name]) is not ModuleType
        )
        run.watch_process()
        if self._runs_for_unstored(step):
            run.users_names = frozenset(run.space_before)
            run.reruns_for_unstored = True
            run.place_earlier(timeline.earlier(step.key))
        elif timeline.binds_only_unbound:
            run.users_names = frozenset(run.space_before)
        elif not self.is_cell(step):
            run.users_names = frozenset(name for name in run.space_before if not timeline.may_bind(name, step.key))
        # `cover` comes last: it unbinds names that the code above needs, and after it nothing may fail before the body runs.
        run.cover(reached_names(space, {*body.reads, *body.parameters}))
        return run

    def is_renamed(self, step: PlanStep) -> bool:
        """Call `Timeline.unpin` for a step that is about to run, unless the step runs only to compute variables that are not stored.

        After `unpin`, the present values of variables are used for the step, not earlier ones. Return True if the code version of the step must be
        computed again, because it was computed from earlier values.
        """
        return not self._runs_for_unstored(step) and self._timeline.unpin(step.key)

    def _runs_for_unstored(self, step: PlanStep) -> bool:
        """Return True if a step runs only to compute variables that are not stored: it was reused in this kernel, and its cell was not edited since."""
        body = step.op.body
        assert isinstance(body, CellBody)
        if self.is_cell(step) and not self._timeline.binds_only_unbound:
            return False
        return self._timeline.is_reused_without_all(step.key, step.code, body.source)

    def keep(self, step: PlanStep, run: LiveRun, outcome: Outcome, memo: str) -> tuple[Effects, StoredValue | None]:
        """Store the effects that a body had on the notebook, and add the reads that `run` recorded to `outcome.reads`.

        Returns
        -------
        effects, value
            `effects` is the description of the effects. `value` is the stored `Bundle` with the values that the effects need; None if the effects
            need no values.
        """
        streams = run.seeded_streams()
        for stream in streams:
            self._seeds.leave(stream)
            self._timeline.seeded(stream, Writer("step", step.key))
        effects = run.finish(outcome.recorder.names_set if outcome.recorder is not None else (), outcome.last_value)
        self._timeline.world.note_settings(step.key, run.settings, run.environment)
        effects = replace(effects, seeded=tuple(sorted(streams & effects.streams.keys())))
        if outcome.recorder is not None:
            files, contents = taken_files(outcome.recorder, self._timeline.project)
            run.bundle.files = contents
            effects = replace(effects, files=files, lost=(*effects.lost, *outcome.recorder.database_changes()))
            for file in files:
                self._timeline.wrote(file.path, file.digest, step.key)
        outcome.reads = (*outcome.reads, *run.reads, *run.stream_reads())
        left_out = run.leave_out(1e9 if effects.acts else max(_SHARE * outcome.seconds, _ALWAYS) * _RATE)
        effects = replace(
            effects, values=tuple(name for name in effects.values if name not in left_out), unstored=tuple(left_out)
        )
        if not effects:
            return effects, None
        body = step.op.body
        assert isinstance(body, CellBody)
        key = effects_output(step).key
        value: StoredValue | None = None
        unstored: list[str] = []
        if run.bundle:
            try:
                value = self._put(run, run.bundle.as_tuple(), key, memo)
            except UnstorableValueError:
                unstored, lost = self._without_unstorable(run, key, body.kept_variables)
                if run.bundle:
                    value = self._put(run, run.bundle.as_tuple(), key, memo)
                effects = replace(
                    effects,
                    values=tuple(name for name in effects.values if name not in unstored),
                    unstored=(*effects.unstored, *unstored),
                    lost=tuple(dict.fromkeys((*effects.lost, *lost))),
                    state=tuple(entry for entry in effects.state if entry[0] not in lost),
                )
        if effects.lost:
            # An attribute of a library's class is written as in Python code: `Class.attribute`.
            names = [name.removeprefix("patches:").replace(":.", ".").replace(":", ".") for name in effects.lost]
            self._notify(notice("unrestored", step.key, names=tuple(names)))
        effects = self._with_lost_variables(body, effects, (*unstored, *left_out))
        return effects, value

    def lacking(self, step: PlanStep, effects: Effects, outputs: Collection[str]) -> Effects:
        """Return `effects` with the changes that are necessary because some outputs of the step could not be stored: those with the names `outputs`.

        Their variables are marked as lost under the condition that `_with_lost_variables` describes.
        """
        body = step.op.body
        assert isinstance(body, CellBody)
        names = dict(zip([output.name for output in step.outputs], body.variables, strict=False))
        return self._with_lost_variables(body, effects, [names[name] for name in outputs if name in names])

    def _with_lost_variables(self, body: CellBody, effects: Effects, unstored: Collection[str]) -> Effects:
        """Return `effects`. If the step does more than bind its names, the `unstored` variables are marked as lost in the result.

        A step that does more must not run later only because one of these variables is needed: it would make its other changes a second time,
        or to objects that have changed since. A step with lost variables runs once in every kernel instead. Files and connections are lost only if
        they are open and the step does more than write files: code seldom needs a closed file, and opening files again changes nothing else.
        """
        space = self._timeline.namespace
        handles = {name: space[name] for name in unstored if name in space and is_handle(space[name])}
        ended = set(_WITH_VARIABLE.findall(body.source))
        closed = [name for name, handle in handles.items() if is_closed(handle, ended=name in ended)]
        effects = replace(effects, handles=(*effects.handles, *handles), closed=(*effects.closed, *closed))
        # For numbers and strings that the step reads and binds again, the earlier values are known (`Timeline.earlier`).
        again = {name for name in body.bound_names & body.reads if type(space.get(name)) not in ATOMS}
        only_binds = again.isdisjoint((*effects.values, *body.variables)) and body.bound_names.issuperset(effects.values)
        if only_binds and not effects.acts:
            return effects
        harmless = only_binds and not effects.changes_process
        kept = handles if harmless else closed
        lost = [name for name in unstored if name in space and name not in kept]
        return replace(effects, lost=tuple(dict.fromkeys((*effects.lost, *lost))))

    def _without_unstorable(self, run: LiveRun, key: str, kept_names: frozenset[str]) -> tuple[list[str], list[str]]:
        """Remove everything that cannot be stored from `run.bundle`, the values that the effects of the run need.

        Parameters
        ----------
        key
            The value key under which the bundle is stored.
        kept_names
            Variables that ``--keep`` names.

        Returns
        -------
        variables, lost
            `variables` are the names of the variables whose values were removed. `lost` are the names of the settings whose values were removed,
            followed by the result of `LiveRun.root_of` for each changed object whose contents were removed.

        Raises
        ------
        UnstorableValueError
            If a variable in `kept_names` cannot be stored.
        """
        bundle = run.bundle
        values = []
        for name, value in bundle.values.items():
            error = self._obstacle(run, value, key)
            if error is None:
                continue
            if name in kept_names:
                # `_obstacle` stores the variable's value as the only element of a tuple.
                place = f" at {name}{error.path.removeprefix('[0]')}" if error.path else ""
                raise UnstorableValueError(
                    f"{name}, which --keep names,",
                    place.join(error.around_path),
                    where=error.where,
                    remedy=f"leave out --keep {name}, or {error.remedy}",
                ) from error
            values.append(name)
        settings = [name for name, value in bundle.settings.items() if self._obstacle(run, value, key) is not None]
        # Entries are identified by position, because comparison of a library's objects may raise an exception.
        unstorable = [position for position, entry in enumerate(bundle.contents) if self._obstacle(run, entry, key) is not None]
        lost = [*settings, *[run.root_of(bundle.contents[position][0]) for position in unstorable]]
        bundle.values = {name: value for name, value in bundle.values.items() if name not in values}
        bundle.settings = {name: value for name, value in bundle.settings.items() if name not in settings}
        bundle.contents = [entry for position, entry in enumerate(bundle.contents) if position not in unstorable]
        return values, lost

    def _put(self, run: LiveRun, values: tuple[Any, ...], key: str, memo: str) -> StoredValue:
        """Store `values`, in which objects of the notebook are replaced by links."""
        stored: StoredValue = self._look(lambda: self._store.put(Linked(values, run.link), key=key, memo_key=memo))
        return stored

    def _obstacle(self, run: LiveRun, value: Any, key: str) -> UnstorableValueError | None:
        """Return the error that the store raises for `value`, a part of the bundle; None if `value` can be stored."""
        try:
            self._put(run, (value,), key, "")
        except UnstorableValueError as error:
            return error
        return None

    def step_executed(
        self,
        step: PlanStep,
        run: LiveRun,
        outcome: Outcome,
        materializations: Mapping[str, Materialization],
        effects: Effects,
    ) -> None:
        """Bind the variables of a step that ran, and note in the timeline what the step bound and changed."""
        body, timeline = step.op.body, self._timeline
        assert isinstance(body, CellBody)
        cell_runs = self.is_cell(step)
        bound, deleted = run.bound_names(), run.deleted_names()
        users_names = run.users_names
        variables = dict(zip(body.variables, step.outputs, strict=False))
        self._bind_inputs(run, bound)
        run.give_back()
        timeline.brought(step.key, step.code, body.source, materializations.values(), as_before=run.reruns_for_unstored)
        for name, output in variables.items():
            item = materializations.get(output.name)
            if item is None or name in users_names or output.name not in outcome.produced:
                continue
            if cell_runs or name in bound or timeline.may_bind(name, step.key):
                timeline.bind(name, item.key, item, outcome.produced[output.name].value)
        if outcome.last_value is not None and cell_runs:
            timeline.results[step.key] = outcome.last_value
        bound_names = [name for name in (*bound, *variables, *deleted) if name not in users_names]
        timeline.leave_unbound([output.key for output in step.outputs])
        changed = (*effects.objects, *[name for name in effects.lost if name in timeline.namespace])
        read = (*body.parameters, *self._shared_reads(body, effects.unstored))
        timeline.note(Writer("step", step.key, step.key), bound=dict.fromkeys(bound_names), changed=changed, read=read)
        timeline.note_handles(step.key, effects.handles, effects.closed)
        timeline.settle(variables)

    def _shared_reads(self, body: CellBody, unstored: Collection[str]) -> list[str]:
        """Return the variables that the body reads and that share objects with a variable in `unstored`."""
        space = self._timeline.namespace
        inside = objects_in([space[name] for name in unstored if name in space])
        return [
            name for name in body.reads if inside and name in space and not inside.keys().isdisjoint(objects_in([space[name]]))
        ]

    def name_writers(self, outcome: Outcome) -> None:
        """Add a note to the exception of a body for each missing file that a step once wrote; the note names this step."""
        error = outcome.error
        assert error is not None
        missed = dict.fromkeys(read.name for read in outcome.reads if read.kind == "absent")
        for path in missed:
            said = lost_file(path, self._timeline.project, self._timeline.world.files, self._store)
            if said:
                error.add_note(said)

    def step_failed(self, step: PlanStep, run: LiveRun) -> None:
        """Record in the timeline what a body bound and changed before it failed. The names stay bound, as after a plain cell that failed."""
        bound, changed = [*run.bound_names(), *run.deleted_names()], run.changed_names()
        self._bind_inputs(run, bound)
        run.give_back()
        self._timeline.world.note_settings(step.key, run.settings, run.environment)
        self._timeline.note(Writer("step", step.key, step.key), bound=bound, changed=changed)

    # -- reuse

    def reuse(self, step: PlanStep) -> str:
        """Restore the effects of the stored execution that the last call of `StoredCells.obstacle` examined.

        Returns
        -------
        str
            Empty on success; otherwise the reason why the effects cannot be restored, so that the step must run.
        """
        hit, timeline = self.stored_cells.hit, self._timeline
        if hit is None:
            return ""
        body, todo = hit.body, hit.files
        by_text = [read.name for read in hit.materializations[0].reads if read.kind == "name"]
        timeline.look_before(step.key, body.bound_names & body.reads.union(by_text))
        restoration = Restoration(timeline, body, hit.effects, self._names_to_bind(hit))
        outdated = self._outdated(hit)
        try:
            bound = self._restore(hit, restoration, todo)
        except Exception as error:
            # If the execution cannot be restored, the step runs, and its body may raise the same error.
            if isinstance(error, ValueUnavailableError):
                self._notify(notice("computed again", step.key, why=error.what))
                return error.what
            return f"the step's changes cannot be restored ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
        self._note_reuse(hit, bound, outdated)
        return ""

    def _names_to_bind(self, hit: _Reuse) -> Collection[str] | None:
        """Return the names that a reuse may bind; None for all names."""
        step, body, effects, timeline = hit.step, hit.body, hit.effects, self._timeline
        names_left = (*effects.values, *body.defined_names(effects.definitions), *body.variables)
        if not hit.cell_runs:
            return [name for name in (*names_left, *effects.deleted) if timeline.may_bind(name, step.key)]
        space = timeline.namespace
        if not hit.is_repeated or not space.keys().isdisjoint(effects.deleted) or timeline.is_touched(step.key, names_left):
            return None
        # If a variable that the step reads was bound again, links in the bundle may lead to other objects than before.
        read = reached_names(space, {*body.reads, *body.parameters}) if hit.effects_record and hit.effects_record.value else ()
        if timeline.is_bound_since(step.key, read):
            return None
        code = [name for name, value in space.items() if isinstance(value, (type, FunctionType))]
        if (
            any(_has_code(item.value) for item in hit.materializations)
            and timeline.is_touched(step.key, code)
            and outdated_code([space[name] for name in names_left if name in space], space)
        ):
            return None
        return ()

    def _outdated(self, hit: _Reuse) -> list[str]:
        """Return the variables of a repeated execution that are not stored and whose present values must not be kept.

        If a variable that the step reads was bound again, they may share objects with its earlier value. Lost variables are left out, because the
        step cannot compute them alone; and so are files and connections, which share no objects.
        """
        body, timeline = hit.body, self._timeline
        if not hit.is_repeated or not timeline.is_bound_since(hit.step.key, {*body.reads, *body.parameters}):
            return []
        kept = {*hit.effects.lost, *hit.effects.handles}
        return [name for name in hit.unstored_names if timeline.may_share(name) and name not in kept]

    def _note_reuse(self, hit: _Reuse, bound: Collection[str], outdated: Collection[str]) -> None:
        """Record in the timeline what the reuse of a step bound and changed.

        Parameters
        ----------
        bound
            The names that were bound or deleted.
        outdated
            The result of `_outdated`.
        """
        step, body, materializations, effects, timeline = (
            hit.step,
            hit.body,
            hit.materializations,
            hit.effects,
            self._timeline,
        )
        # Other cells may have bound the variables of closed files and connections since.
        again = [name for name in effects.closed if hit.is_repeated and hit.cell_runs and timeline.is_touched(step.key, [name])]
        timeline.brought(step.key, step.code, body.source, materializations)
        lacking = [*outdated, *again] if hit.is_repeated else hit.unstored_names
        unbound = [name for name in lacking if name not in bound and (hit.cell_runs or timeline.may_bind(name, step.key))]
        closed = self._closed(hit, unbound)
        timeline.namespace.update(closed)
        bound = [*bound, *closed]
        unbound = [name for name in unbound if name not in closed]
        for name in unbound:
            # The name may be bound to a value from another cell, or from another run of this cell.
            timeline.namespace.pop(name, None)
        if hit.cell_runs and RESULT in effects.unstored:
            timeline.results[step.key] = Unstored(materializations[0].key)
        changed = () if hit.skips_objects else effects.objects
        timeline.note(Writer("step", step.key, step.key), bound=dict.fromkeys(bound), changed=changed, read=body.parameters)
        timeline.settle(body.variables)
        keys = [output.key for output in step.outputs]
        pending = [name for name, key in timeline.unstored.items() if key in keys] if hit.is_repeated else []
        timeline.leave_unbound(keys, [*pending, *unbound])
        timeline.handles.update(name for name in effects.handles if name in unbound)

    def _closed(self, hit: _Reuse, names: Collection[str]) -> dict[str, Any]:
        """Return the values of those of the unbound variables `names` that the step left bound to closed files and connections, by variable.

        They are the objects that the step closed in this kernel. If there are none, code that needs such a variable makes the step run again, so a
        variable is left out here; but a `Closed` stands for it if a second run of the step would make other changes again.
        """
        closed = {name: handle for name, handle in self._timeline.closed_by(hit.step.key).items() if name in names}
        if hit.effects.changes_process:
            return {name: Closed(hit.step.key) for name in names if name in hit.effects.closed} | closed
        return closed

    def _restore(self, hit: _Reuse, restoration: Restoration, todo: FilesToRestore) -> list[str]:
        """Restore the effects of an execution: definitions, values, objects, files, random streams, settings. Return the bound and deleted names."""
        timeline, store, body, effects = self._timeline, self._store, hit.body, hit.effects
        items = {item.output: item for item in hit.materializations}
        outputs = [
            (name, item)
            for name, output in zip(body.variables, hit.step.outputs, strict=False)
            if (item := items.get(output.name)) is not None
        ]
        # A definition may be an import that reads this state.
        before = self._set_for_imports(hit)
        waiting = restoration.define()
        # `effects.definitions` contains only definitions that the body executed and whose names had no other value at the end.
        bound = [name for name in body.defined_names(effects.definitions) if restoration.may(name)]
        stored = [(name, item, item.value) for name, item in outputs if item.value is not None and restoration.may(name)]
        if any(_has_code(value) for _, _, value in stored):
            self._bind_first(hit, restoration, [name for name, _, _ in stored])
        for name, item, value in stored:
            timeline.bind(name, item.key, item, store.get(value, key=item.key, link=restoration.link))
            bound.append(name)
        settings: dict[str, Any] = {}
        if hit.effects_record is not None and hit.effects_record.value is not None:
            plain = store.get(hit.effects_record.value, key=hit.effects_record.key, link=restoration.link)
            restore_files(todo, plain[4], timeline.project)
            restored_names = restoration.apply(plain, skip_objects=hit.skips_objects)
            if RESULT in plain[1] and hit.cell_runs:
                timeline.results[hit.step.key] = plain[1][RESULT]
            self._restore_streams(hit, plain[3])
            bound += restored_names
            settings = plain[5]
            for name, item in outputs:
                if name in restored_names:
                    timeline.bind(name, item.key, item, timeline.namespace[name])
        else:
            restore_files(todo, {}, timeline.project)
        for definition in waiting:
            exec(definition.code, timeline.namespace)  # noqa: S102 - the user's own cell
        bound += restoration.delete()
        self._note_files(hit, todo)
        if before is not None:
            self._restore_settings(hit, before, settings)
        for path in todo.left_paths:
            self._notify(notice("file left", hit.step.key, path=path))
        return bound

    def _bind_first(self, hit: _Reuse, restoration: Restoration, outputs: Collection[str]) -> None:
        """Bind the variables of the step that are not outputs, because the code of classes and functions in the values of the outputs may read them.

        Nothing is bound if the stored variables link to objects in the outputs, which are not loaded yet. After the outputs, the caller loads the
        variables again, because their code may in turn read the outputs.
        """
        record = hit.effects_record
        if record is None or record.value is None:
            return
        links_to_outputs = False

        def link(found: Any) -> Any:
            nonlocal links_to_outputs
            links_to_outputs = links_to_outputs or (found[0] == "at" and found[1] in outputs)
            return None if links_to_outputs else restoration.link(found)

        plain = self._store.get(record.value, key=record.key, link=link)
        restoration.forget_views()
        if not links_to_outputs:
            restoration.bind(plain)

    def _restore_streams(self, hit: _Reuse, states: Mapping[str, Any]) -> None:
        step_key, effects, timeline = hit.step.key, hit.effects, self._timeline
        for stream, state in states.items():
            if hit.is_repeated and stream not in effects.seeded and not timeline.was_seeded(stream, step_key):
                continue
            if stream in effects.seeded:
                timeline.seeded(stream, Writer("step", step_key))
            set_stream(stream, state)
            seeded.add(stream)
            self._seeds.leave(stream)

    def _note_files(self, hit: _Reuse, todo: FilesToRestore) -> None:
        """Record the digest of each file that the step wrote, except files that were not restored."""
        for file in hit.effects.files:
            if file.path in todo.left_paths:
                continue
            if hit.is_repeated and file.path not in {*todo.write, *todo.remove}:
                self._timeline.world.files[file.path] = (file.digest, hit.step.key)
            else:
                self._timeline.wrote(file.path, file.digest, hit.step.key)

    def _set_for_imports(self, hit: _Reuse) -> _Before | None:
        """Set the settings that a step changed, as far as they are recorded as text, because the imports of its cell may read them.

        Return the settings before, for `_restore_settings`; None if the step changed no settings, or if those that it changed stay as they are.
        """
        step_key, entries, world = hit.step.key, hit.effects.state, self._timeline.world
        if not hit.is_repeated:
            world.undo_settings(step_key)
        if not entries or (hit.skips_objects and world.has_settings(step_key)):
            return None
        before = library_state.snapshot(), environment_copy()
        # A log file must not be opened before it is restored.
        later = (ENVIRONMENT, "logging:")
        library_state.apply([entry for entry in entries if entry[1] is not None and not entry[0].startswith(later)])
        for name, value in entries:
            if name.startswith(ENVIRONMENT):
                set_variable(name.removeprefix(ENVIRONMENT), value)
        return before

    def _restore_settings(self, hit: _Reuse, before: _Before, values: Mapping[str, Any]) -> None:
        """Set the settings that a step changed again, because imports may change them, and set those that are not recorded as text.

        Parameters
        ----------
        before
            The result of `_set_for_imports`.
        values
            Maps the name of a setting to its value, for the settings whose values cannot be recorded as strings.
        """
        entries = [entry for entry in hit.effects.state if not entry[0].startswith(ENVIRONMENT)]
        failed = library_state.apply(entries, values)
        if failed:
            self._notify(notice("not set", hit.step.key, names=tuple(failed[:3])))
        self._timeline.world.note_settings(hit.step.key, *before)
