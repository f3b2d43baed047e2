"""What the engine does with asset cells of a notebook: run them live, record what they left, restore it on a hit."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.errors import NamesReassignedError, UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.execution import file_effects
from stepwell.kernel_runtime.execution.in_process import Outcome
from stepwell.kernel_runtime.execution.live_cells import ENVIRONMENT, LiveRun, Restoration
from stepwell.kernel_runtime.execution.outputs import Produced
from stepwell.kernel_runtime.execution.seeds import Seeds, set_stream
from stepwell.kernel_runtime.execution.timeline import Timeline, Writer, reached_names
from stepwell.kernel_runtime.planning.plan import PlanOutput, PlanStep
from stepwell.kernel_runtime.records.effects import NOTEBOOK, Effects
from stepwell.kernel_runtime.records.linked import Linked
from stepwell.kernel_runtime.records.materializations import Materialization, StoredValue
from stepwell.kernel_runtime.records.protocols import ValueStore
from stepwell.kernel_runtime.versions import library_state
from stepwell.kernel_runtime.versions.reads.readers import seeded

_SHARE = 0.05
"""Part of a step's time that storing its other variables may take."""
_ALWAYS = 0.05
"""Seconds that it may take in any case."""
_RATE = 1e9
"""Bytes that are stored in a second."""


class NotebookCells:
    """The asset cells among the steps of one run.

    Parameters
    ----------
    timeline, store
        Of the session.
    seeds
        Of the run.
    tell
        Is given lines for the person at the notebook.
    """

    def __init__(self, timeline: Timeline, store: ValueStore, seeds: Seeds, tell: Callable[[str], None]) -> None:
        self._seeds = seeds
        self._timeline = timeline
        self._store = store
        self._tell = tell

    @staticmethod
    def is_live(step: PlanStep) -> bool:
        """Return True for a step that runs in the notebook's namespace."""
        return isinstance(step.op.body, CellBody) and step.op.body.live

    def is_own(self, step: PlanStep) -> bool:
        """Return True if the request names the step: its cell runs, or it was asked for by its name."""
        return step.key in self._timeline.requested

    def is_cell(self, step: PlanStep) -> bool:
        """Return True if the step's own cell runs: it binds all its names. Others bind what the user did not."""
        return step.key in self._timeline.cells

    def reassigned(self, step: PlanStep) -> str:
        """Return what is to be said of names that other cells assigned again since the step was brought up to date; empty if nothing is."""
        return "" if self.is_own(step) else self._timeline.reassigned.get(step.key, "")

    # -- a run

    def check(self, step: PlanStep) -> None:
        """Check that a step that is needed further down can run as its cell would.

        Raises
        ------
        NamesReassignedError
            If other cells assigned names again that it reads.
        """
        if self.is_own(step):
            return
        body = step.op.body
        assert isinstance(body, CellBody)
        for name, label in body.changed:
            if self._timeline.asset_of(name) is not None:
                raise NamesReassignedError(
                    f"{step.key!r} reads your {name} from {label}, which has not run since {name} was bound to its asset",
                    where=step.where,
                    remedy=f"run cell {label}, then the cell of {step.key}",
                )
        again = self._timeline.reassigned.get(step.key)
        if again is not None:
            raise NamesReassignedError(
                f"{step.key!r} must run, but other cells have assigned names again that it reads: it was computed {again.partition(' (')[0]}",
                where=step.where,
                remedy=f"run the cells that assign them and then the cell of {step.key}, in their order",
            )

    def has_input(self, name: str, item: Materialization) -> bool:
        """Return True if a variable of the notebook is the unchanged value of a materialization."""
        bound = self._timeline.asset_of(name)
        if bound is None or bound.key != item.key:
            return False
        return bound.data_version == item.data_version if item.data_version else bound.materialization == item.id

    def has_value(self, key: str, item: Materialization) -> bool:
        """Return True if a value that could not be stored is alive in this kernel."""
        return self._timeline.alive(key, item) is not None

    def value(self, key: str) -> Any:
        """Return a value that lives in this kernel only.

        Raises
        ------
        ValueUnavailableError
            If it is gone.
        """
        found = self._timeline.alive(key)
        if found is None:
            raise ValueUnavailableError(
                f"the value of {key!r} is not stored, and its variable is gone", remedy=f"run the cell of {key}"
            )
        return found

    def begin(self, step: PlanStep, arguments: Mapping[str, Any]) -> LiveRun:
        """Bind inputs that the notebook does not have, and note what the body may change."""
        body = step.op.body
        assert isinstance(body, CellBody)
        space = self._timeline.namespace
        self._timeline.look_before(step.key, body.bound & body.reads)
        names = {*body.reads, *body.parameters}
        reached = reached_names(space, names)
        run = LiveRun(self._timeline, body, reached, arguments)
        if body.changes is not None:
            functions = [name for name in body.reads if callable(space.get(name))]
            run.suspects = body.changes | (reached_names(space, functions) - set(functions))
        run.watch_process()
        if not self.is_cell(step):
            run.theirs = frozenset(name for name in run.before if not self._timeline.may_bind(name, step.key))
        # Last: whose names are the user's is asked above, and nothing may fail between this and the body.
        run.cover(reached_names(space, {*body.reads, *body.parameters}))
        return run

    def keep(self, step: PlanStep, run: LiveRun, outcome: Outcome, memo: str) -> tuple[Effects, StoredValue | None]:
        """Store what a body left in the notebook; add it to the outcome as one more output.

        Returns
        -------
        effects, value
            None if there is nothing to store.
        """
        for stream in run.seeded_streams():
            self._seeds.leave(stream)
        effects = run.finish(outcome.recorder.names_set if outcome.recorder is not None else ())
        if outcome.recorder is not None:
            files, contents = file_effects.taken(outcome.recorder, self._timeline.project)
            run.bundle.files = contents
            effects = replace(effects, files=files)
            for each in files:
                self._timeline.files[each.path] = (each.digest, step.key)
        outcome.reads = (*outcome.reads, *run.stream_reads())
        left_out = run.leave_out(1e9 if effects.acts else max(_SHARE * outcome.seconds, _ALWAYS) * _RATE)
        effects = replace(
            effects, values=tuple(name for name in effects.values if name not in left_out), unstored=tuple(left_out)
        )
        if not effects:
            return effects, None
        key = f"{step.address}:{NOTEBOOK}"
        value: StoredValue | None = None
        unstored: list[str] = []
        if run.bundle:
            try:
                value = self._store.put(Linked(run.bundle.plain(), run.link), key=key, memo_key=memo)
            except UnstorableValueError:
                unstored = self._without_unstorable(run, key)
                if run.bundle:
                    value = self._store.put(Linked(run.bundle.plain(), run.link), key=key, memo_key=memo)
        effects = self._once(effects, (*unstored, *left_out))
        if unstored:
            left = tuple(name for name in effects.values if name not in unstored)
            lost = (*effects.lost, *([""] if "" in unstored else []))
            more = tuple(name for name in unstored if name)
            effects = replace(effects, values=left, unstored=(*effects.unstored, *more), lost=lost)
        outcome.produced[NOTEBOOK] = Produced(PlanOutput(NOTEBOOK, key, None, stored=True, required=False), None)
        return effects, value

    def lacking(self, step: PlanStep, effects: Effects, outputs: Collection[str]) -> Effects:
        """Return the effects of a step some of whose own values could not be stored."""
        body = step.op.body
        assert isinstance(body, CellBody)
        names = dict(zip([each.name for each in step.outputs], body.variables, strict=False))
        return self._once(effects, [names[name] for name in outputs if name in names])

    def _once(self, effects: Effects, unstored: Collection[str]) -> Effects:
        """Return effects with variables that have no stored value counted as lost, where the step acts on more than its own names.

        Such a step cannot be run later, when the variable is needed: it would act twice, or on what others have changed by then.
        """
        if not effects.acts:
            return effects
        space = self._timeline.namespace
        lost = [name for name in unstored if name in space and not _is_handle(space[name])]
        return replace(effects, lost=(*effects.lost, *lost))

    def _without_unstorable(self, run: LiveRun, key: str) -> list[str]:
        """Take values that cannot be stored out of a bundle; return their names."""
        found = []
        for name, value in list(run.bundle.values.items()):
            try:
                self._store.put(Linked((value,), run.link), key=key, memo_key="")
            except UnstorableValueError:
                del run.bundle.values[name]
                found.append(name)
        for entry in list(run.bundle.put):
            try:
                self._store.put(Linked(entry, run.link), key=key, memo_key="")
            except UnstorableValueError:
                # By identity: the objects of a library may raise when they are compared.
                run.bundle.put = [each for each in run.bundle.put if each is not entry]
                found.append("")
        return found

    def executed(
        self, step: PlanStep, run: LiveRun, outcome: Outcome, made: Mapping[str, Materialization], effects: Effects
    ) -> None:
        """Bind the variables of a step that ran, and note the events."""
        body, timeline = step.op.body, self._timeline
        assert isinstance(body, CellBody)
        own = self.is_cell(step)
        bound = run.bound()
        theirs = run.theirs
        variables = dict(zip(body.variables, step.outputs, strict=False))
        run.give_back()
        timeline.brought(step.key, step.code.digest if step.code else "", body.source, made.values())
        for name, output in variables.items():
            item = made.get(output.name)
            if item is None or name in theirs or output.name not in outcome.produced:
                continue
            if own or name in bound or timeline.may_bind(name, step.key):
                timeline.bind(name, item.key, item, outcome.produced[output.name].value)
        mine = [name for name in (*bound, *variables) if name not in theirs]
        for name in mine:
            timeline.unstored.pop(name, None)
        timeline.note(
            Writer("step", step.key, step.key), bound=dict.fromkeys(mine), changed=effects.objects, read=body.parameters
        )
        timeline.settle(variables)

    def name_writers(self, outcome: Outcome) -> None:
        """Add to a body's error which steps wrote the files that it missed."""
        error = outcome.error
        assert error is not None
        missed = dict.fromkeys(read.name for read in outcome.reads if read.kind == "absent")
        for path in missed:
            said = file_effects.lost(path, self._timeline.project, self._timeline.files, self._store)
            if said:
                error.add_note(said)

    def failed(self, step: PlanStep, run: LiveRun) -> None:
        """Note what a body bound before it failed: as after a plain cell, it stays."""
        bound, changed = run.bound(), run.changed_names()
        run.give_back()
        self._timeline.note(Writer("step", step.key, step.key), bound=bound, changed=changed)

    # -- a hit

    def reuse(self, step: PlanStep, group: tuple[Materialization, ...]) -> str:
        """Leave the notebook as the run left it.

        Returns
        -------
        str
            Why that cannot be done, so that the step must run; empty if it is done.
        """
        body, timeline = step.op.body, self._timeline
        assert isinstance(body, CellBody)
        own = self.is_cell(step)
        again = timeline.has_brought(step.key, group[0])
        # The names that it reads differ from what they were when it ran here: its own effects, or later ones, were applied.
        pinned = step.key in timeline.pinned
        if again and not own:
            return ""
        kept = next((item for item in group if item.output == NOTEBOOK), None)
        if kept is None and any(item.effects for item in group):
            return "what it did to the notebook is not recorded"
        # Nothing of a record is looked at, not even whether it has effects, before a trusted key is known to have signed it.
        if kept is not None and not self._is_trusted(kept, group):
            return "what it did to the notebook is not signed with a trusted key"
        effects = Effects.from_text(kept.effects) if kept is not None else Effects()
        unstored = self._unstored(step, group, effects)
        if unstored and again and timeline.is_touched(step.key, unstored):
            return f"{unstored[0]} is not stored, and may have been changed since"
        if effects.lost and not (again and (pinned or not timeline.is_touched(step.key, effects.lost))):
            return f"once in every kernel: what it changed cannot be restored ({', '.join(each or 'an object that cannot be stored' for each in effects.lost)})"
        timeline.look_before(step.key, body.bound & body.reads)
        todo = file_effects.compare(effects.files, timeline.project, self._was_written, own=own)
        if not todo.possible:
            return "a file that it wrote is lost, and too large to be stored"
        names: Collection[str] | None = None
        if not own:
            names = [
                name
                for name in (*effects.values, *self._defined(body, effects), *effects.deleted, *body.variables)
                if timeline.may_bind(name, step.key)
            ]
        elif again and not timeline.is_touched(
            step.key, (*effects.values, *self._defined(body, effects), *body.variables)
        ):
            names = ()
        restoration = Restoration(timeline, body, effects, names)
        try:
            bound = self._restore(
                step, body, group, kept, restoration, todo=todo, skip_objects=again and pinned, again=again
            )
        except Exception as error:
            # Whatever cannot be restored is computed: the body raises its own errors.
            if isinstance(error, ValueUnavailableError):
                self._tell(f"{error.what}: computed again")
                return error.what
            return f"what it left cannot be restored ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
        timeline.brought(step.key, step.code.digest if step.code else "", body.source, group)
        if not again:
            timeline.unstored.update(dict.fromkeys(unstored, group[0].key))
        changed = () if again and pinned else effects.objects
        timeline.note(
            Writer("step", step.key, step.key), bound=dict.fromkeys(bound), changed=changed, read=body.parameters
        )
        timeline.settle(body.variables)
        return ""

    @staticmethod
    def _unstored(step: PlanStep, group: tuple[Materialization, ...], effects: Effects) -> list[str]:
        """Return the variables of a step whose values are not stored."""
        body = step.op.body
        assert isinstance(body, CellBody)
        lacking = {item.output for item in group if item.value is None and item.output != NOTEBOOK}
        mine = [name for name, output in zip(body.variables, step.outputs, strict=False) if output.name in lacking]
        return [*mine, *effects.unstored]

    def _is_trusted(self, kept: Materialization, group: tuple[Materialization, ...]) -> bool:
        """Return True if a trusted key signed what a step left, and the rows beside it say nothing else of when it holds."""
        return self._store.vouches(kept) and all(
            (item.reads, item.inputs, item.code_version) == (kept.reads, kept.inputs, kept.code_version)
            for item in group
        )

    @staticmethod
    def _defined(body: CellBody, effects: Effects) -> list[str]:
        return [
            name
            for number in effects.definitions
            if number < len(body.definitions)
            for name in body.definitions[number].names
        ]

    def _restore(
        self, step: PlanStep, body: CellBody, group: tuple[Materialization, ...], kept: Materialization | None,
        restoration: Restoration, *, todo: file_effects.FilesToRestore, skip_objects: bool, again: bool,
    ) -> list[str]:  # fmt: skip
        timeline, store = self._timeline, self._store
        items = {item.output: item for item in group}
        waiting = restoration.define()
        bound = [name for definition in body.definitions for name in definition.names if restoration.may(name)]
        for name, output in zip(body.variables, step.outputs, strict=False):
            item = items.get(output.name)
            if item is None or item.value is None or not restoration.may(name):
                continue
            timeline.bind(name, item.key, item, store.get(item.value, key=item.key))
            bound.append(name)
        if kept is not None and kept.value is not None:
            plain = store.get(kept.value, key=kept.key, link=restoration.link)
            file_effects.restore(todo, plain[4], timeline.project)
            more = restoration.apply(plain, skip_objects=skip_objects)
            for stream, state in () if again and not timeline.seeded_since(step.key) else plain[3].items():
                set_stream(stream, state)
                seeded.add(stream)
                self._seeds.leave(stream)
            bound += more
            for name, output in zip(body.variables, step.outputs, strict=False):
                item = items.get(output.name)
                if name in more and item is not None:
                    timeline.bind(name, item.key, item, timeline.namespace[name])
        else:
            file_effects.restore(todo, {}, timeline.project)
        for definition in waiting:
            exec(definition.code, timeline.namespace)  # noqa: S102 - the user's own cell
        if kept is not None:
            effects = Effects.from_text(kept.effects)
            for each in effects.files:
                if each.path not in todo.left:
                    timeline.files[each.path] = (each.digest, step.key)
            if not skip_objects:
                library_state.apply([entry for entry in effects.state if not entry[0].startswith(ENVIRONMENT)])
                for name, value in effects.state:
                    if not name.startswith(ENVIRONMENT):
                        continue
                    if value is None:
                        os.environ.pop(name.removeprefix(ENVIRONMENT), None)
                    else:
                        os.environ[name.removeprefix(ENVIRONMENT)] = value
        for path in todo.left:
            self._tell(
                f"{step.key} wrote {path}, which was changed by something else since: it is left as it is (-f writes it again)"
            )
        return bound

    def _was_written(self, path: str, digest: str) -> bool:
        """Return True if a step left a file of the project in a state, here or in an earlier run."""
        found = self._timeline.files.get(path)
        if found is not None and found[0] == digest:
            return True
        return any(
            each.path == path and each.digest == digest
            for item in self._store.writers_of(path)
            if self._store.vouches(item)
            for each in Effects.from_text(item.effects).files
        )


def _is_handle(value: Any) -> bool:
    """Return True for an open or closed file, a connection or the like: nothing later depends on having the same one."""
    kind = type(value)
    return hasattr(kind, "__exit__") or kind.__module__.partition(".")[0] in {"_csv", "sqlite3", "_duckdb"}
