"""Looking without running: states, reasons, the lineage, stored values; accepting an edit that does not matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, get_args

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import source_of
from stepwell.kernel_runtime.errors import (
    DefinitionUnavailableError,
    InvalidInvocationError,
    InvariantViolationError,
    StoreError,
    UnknownKeyError,
    ValueUnavailableError,
    unknown_key,
)
from stepwell.kernel_runtime.execution.world import HiddenState
from stepwell.kernel_runtime.planning.build import (
    Definitions,
    build_job_plan,
    build_plan,
    resolve_targets,
    step_extra,
    step_owner,
    unknown_step,
)
from stepwell.kernel_runtime.planning.decision import Known
from stepwell.kernel_runtime.planning.picture import picture
from stepwell.kernel_runtime.planning.plan import Plan, PlanStep, asset_steps
from stepwell.kernel_runtime.planning.states import StepState, plan_states
from stepwell.kernel_runtime.reads import active, watch
from stepwell.kernel_runtime.records.events import DefinitionsChanged, Lineage, Notice, notice
from stepwell.kernel_runtime.records.materializations import CodeVersion, Current, Materialization, Read, Verify
from stepwell.kernel_runtime.records.runs import CapturedOutput
from stepwell.kernel_runtime.session.acceptance import accept_step, check_acceptable, reader_of_now, revoke_step
from stepwell.kernel_runtime.session.explanation import Explainer, Explanation
from stepwell.kernel_runtime.session.history import Settling, WhichVersion, is_identifier, load_version
from stepwell.kernel_runtime.session.holding import Holding, users_digest
from stepwell.kernel_runtime.session.origins import Origins
from stepwell.kernel_runtime.session.preparation import known_for, plan_of_steps
from stepwell.kernel_runtime.session.requests import Given, Targets, choose, lookup, read_targets
from stepwell.kernel_runtime.store.catalog.instance import warm_up
from stepwell.kernel_runtime.store.catalog.tables import read_attempts
from stepwell.kernel_runtime.store.signing import read_outputs
from stepwell.kernel_runtime.versions.opcodes import untested
from stepwell.kernel_runtime.versions.secrets import environment_now, hidden_source
from stepwell.kernel_runtime.versions.walk import CodeWalk

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

_VERSIONS = 200
"""Materializations of a key among which the one that a step was given is looked for."""


class Looking(Holding):
    """What can be asked of a session at any moment; no user code runs."""

    def states(self, targets: Targets = None, *, definitions: Given = None, store: Any = None) -> dict[str, StepState]:
        """Return the state of the steps of assets and of everything upstream of them, in an order in which they could run."""
        given, words = read_targets(targets)
        found = lookup(self.registry, definitions, given)
        walk = self._walk(found)
        return self._states(build_plan(resolve_targets(words, found), found, walk), walk, self.chosen(store))

    def code_versions(self) -> dict[str, str]:
        """Return the code version of each step of what is registered, by the step's key."""
        found = lookup(self.registry)
        plan = build_plan(resolve_targets(None, found), found, self._walk(found))
        return {step.key: step.code.digest for step in plan.steps if step.code is not None}

    def accept(self, key: str, *, definitions: Given = None, store: Any = None) -> Explanation:
        """Mark the edits that make an asset or step stale as not mattering: what is stored is valid for what is there now.

        What is fresh stays as it is, so that a notebook that accepts can be run again. It is on the record and shown by `why`; `revoke` takes it back.

        Raises
        ------
        UnknownKeyError
            If nothing is called so.
        ValueUnavailableError
            If nothing is stored.
        InvariantViolationError
            If something upstream is to be decided first.
        """
        steps = self._own_steps(key, definitions)
        used = self.chosen(store)
        accepted: list[str] = []
        for step_key in steps:
            # What one step accepts decides the state of the next.
            plan, walk, known, states = self._looked_at(key, definitions, used)
            step, state = plan.step(step_key), states[step_key]
            if step is None or state.state == "fresh":
                continue
            check_acceptable(step, state)
            read_anew = reader_of_now(users_digest(), lambda read: _version_of(self._loaded(read, used)))
            accept_step(
                step, state, used, code_parts(walk)(step), self.notebook, holds=known.holds, read_anew=read_anew
            )
            accepted.append(step_key)
        if accepted:
            self.publish(DefinitionsChanged(tuple(accepted)))
        return self.why(key, definitions=definitions, store=used)

    def revoke(self, key: str, *, definitions: Given = None, store: Any = None) -> Explanation:
        """Take back the newest acceptance of an asset or step; errors as in `accept`."""
        steps = self._own_steps(key, definitions)
        used = self.chosen(store)
        plan, _, _, states = self._looked_at(key, definitions, used)
        taken = [
            step.key
            for step_key in steps
            if (step := plan.step(step_key)) is not None and revoke_step(step, states[step_key], used, self.notebook)
        ]
        if not taken:
            raise InvariantViolationError(
                f"nothing was accepted for {key!r}: there is nothing to revoke", remedy=f"%why {key} tells its state"
            )
        self.publish(DefinitionsChanged(tuple(taken)))
        return self.why(key, definitions=definitions, store=used)

    def why(self, key: str, *, definitions: Given = None, store: Any = None) -> Explanation:
        """Return why an asset or step is in its state, and why it ran last; of what only the store has, the latter.

        Raises
        ------
        UnknownKeyError
            If nothing is called so.
        """
        try:
            steps = self._own_steps(key, definitions)
        except UnknownKeyError as unknown:
            try:
                used = self.chosen(store)
            except StoreError:
                raise unknown from None
            return self._why_stored(key, used, unknown)
        used = self.chosen(store)
        plan, *_, states = self._looked_at(key, definitions, used)
        origins = Origins(used, states)
        own = [step for step in plan.steps if step.key in steps]
        runs = {step.key: run for step in own if (run := origins.last_run(step.address, step.notebook)) is not None}
        return Explanation(key, tuple(origins.of(states[step]) for step in steps), runs)

    def _why_stored(self, key: str, store: ValueStore, unknown: UnknownKeyError) -> Explanation:
        """Return what is known of a key that only the store has: its cell has not run here."""
        rows = store.current(key)
        item = self._choose(key, rows, store) if rows else None
        if item is None:
            raise unknown
        run = Origins(store, {}).last_run(item.step_key, item.notebook)
        return Explanation(key, (), {} if run is None else {item.step_key: run}, item)

    def _owner(self, key: str, found: Definitions) -> AssetsDefinition:
        owner = found.asset(key)
        if not isinstance(owner, AssetsDefinition):
            owner = step_owner(key, found)
        if owner is None:
            raise unknown_step(key, found, found.keys)
        return owner

    def _own_steps(self, key: str, definitions: Given) -> list[str]:
        """Return the keys of the steps that a key means, in the order of the definition."""
        steps = [step.key for step in asset_steps(self._owner(key, lookup(self.registry, definitions)))]
        return [key] if key in steps else steps

    def _looked_at(
        self, key: str, definitions: Given, store: ValueStore
    ) -> tuple[Plan, CodeWalk, Known, dict[str, StepState]]:
        found = lookup(self.registry, definitions)
        walk = self._walk(found)
        plan = build_plan([str(own) for own in self._owner(key, found).keys], found, walk)
        known = known_for(plan, store, self._choose, self._loaded, settle=self._settling(store, walk))
        self._in_kernel(known)
        return plan, walk, known, plan_states(plan, known, Explainer(store, known, walk, code_parts(walk)))

    def lineage(self, *, store: Any = None) -> Lineage:
        """Return everything that is registered as cards and edges."""
        found = lookup(self.registry)
        walk = self._walk(found)
        plan = build_plan(resolve_targets(None, found), found, walk)
        jobs = [(job, build_job_plan(job, walk)) for job in found.jobs.values()]
        environment, timeline = environment_now(), self.timeline
        return picture(
            plan,
            self._states(plan, walk, self.chosen(store)),
            found,
            jobs,
            lambda body: hidden_source(source_of(body), environment),
            left_by=lambda step: timeline.left_by(step.key, step.op.body) if timeline is not None else (),
        )

    def load(
        self,
        key: str,
        *,
        notebook: str | None = None,
        version: WhichVersion | None = None,
        verify: Verify = "signed",
        store: Any = None,
    ) -> Any:
        """Return the current value of an asset, or of a step inside a graph-backed asset or job.

        Parameters
        ----------
        notebook
            Whose value is meant, where several notebooks define the key.
        version
            An older one: the beginning of its identifier, a number (-1 is the newest, -2 the one before), or a time.
        verify
            ``full`` checks every byte of the value's file; ``signed`` what would be executed, and sizes.

        Raises
        ------
        ValueUnavailableError
            If there is none, or it cannot be loaded.
        AmbiguousKeyError
            If several notebooks define the key, still exist, and their current values differ.
        UnknownVersionError
            If the key has no such version.
        """
        if verify not in get_args(Verify):
            raise InvalidInvocationError(f"a load has no verify={verify!r}", remedy='verify="full" checks every byte')
        if version is not None:
            return self._load_version(key, version, notebook, store, verify)
        step = active()
        # Inside a step what is meant is the store of its run.
        used = (
            self._run_store
            if step is not None and store is None and self._run_store is not None
            else self.chosen(store)
        )
        if step is not None:
            # What the store does for it is no read of the step.
            with step.looks():
                item = self.current(key, used, notebook=notebook)
            where = (
                (notebook or "", "" if store is None else str(used.directory)) if notebook or store is not None else ()
            )
            step.asset_loaded(key, item.data_version or item.id, where)
        else:
            item = self.current(key, used, notebook=notebook)
        if item.value is None:
            raise ValueUnavailableError(
                f"{key!r} has no stored value", remedy="its output is Nothing, or could not be kept"
            )
        if step is not None:
            with step.looks():
                return used.get(item.value, key=key, verify=verify)
        return used.get(item.value, key=key, verify=verify)

    def _load_version(self, key: str, version: WhichVersion, notebook: str | None, store: Any, verify: Verify) -> Any:
        step = active()
        used = (
            self._run_store
            if step is not None and store is None and self._run_store is not None
            else self.chosen(store)
        )
        if step is None:
            return load_version(used, key, version, notebook, verify=verify)
        if not isinstance(version, str) or not is_identifier(version):
            # What a number or a time means changes with every run, and nothing would tell that this step is stale.
            raise InvalidInvocationError(
                f"inside a step a version of {key!r} is named by its identifier",
                remedy=f"stepwell.versions({key!r}) lists them",
            )
        with step.looks():
            return load_version(used, key, version, notebook, verify=verify)

    def current(self, key: str, store: ValueStore | None = None, *, notebook: str | None = None) -> Materialization:
        """Return the current materialization of a key, or of the only output of a step; errors as in `load`."""
        used = store or self.store
        rows = used.current(key)
        if not rows:
            owned = self._outputs_of_step(key)
            rows = used.current(owned[0]) if len(owned) == 1 else []
        if not rows:
            known = [*used.keys(), *self.registry.assets]
            remedy = (
                f"%materialize {key}, or stepwell.materialize([{key!r}])"
                if key in self.registry.assets
                else unknown_key("key", key, known).remedy
            )
            raise ValueUnavailableError(f"nothing is stored for {key!r}", where=str(used.directory), remedy=remedy)
        if notebook is not None:
            rows = [row for row in rows if row.notebook == notebook]
        item = self._choose(key, rows, used)
        if item is None:
            raise ValueUnavailableError(f"nothing is stored for {key!r}")
        return item

    def inputs(self, step_key: str, *, store: Any = None) -> dict[str, Any]:
        """Return a step's stored inputs by the names of its parameters: for looking into a step that failed.

        Raises
        ------
        UnknownKeyError
            If no step is called so.
        ValueUnavailableError
            If an input has no stored value.
        """
        return {name: value for name, (_, value) in self.step_inputs(step_key, store=store).items()}

    def step_inputs(self, step_key: str, *, store: Any = None) -> dict[str, tuple[tuple[str, ...], Any]]:
        """Return a step's stored inputs, each with the keys of the values that it consists of; none for config and defaults.

        Where the step is not defined here, they are what it was given in its last run that ended well. Errors are those of `inputs`.
        """
        found = lookup(self.registry)
        used = self.chosen(store)
        try:
            plan = plan_of_steps([step_key], found, self._walk(found), used)
        except DefinitionUnavailableError:
            recorded = self._recorded_inputs(step_key, used)
            if recorded is None:
                raise
            return recorded
        given_values: dict[str, tuple[tuple[str, ...], Any]] = {}
        for step in plan.steps:
            for given in step.inputs:
                if given.carries_value and given.keys:
                    loaded = [self.load(key, store=store) for key in given.keys]
                    given_values[given.name] = given.keys, loaded if given.fan_in else loaded[0]
                elif given.name and not given.keys:
                    given_values[given.name] = (), given.default
            given_values.update((name, ((), value)) for name, value in step.config.items())
        return given_values

    def _recorded_inputs(self, step_key: str, store: ValueStore) -> dict[str, tuple[tuple[str, ...], Any]] | None:
        """Return what a step was given when it was executed last; None if that is not recorded."""
        attempts = store.catalog.ask(read_attempts, step_key)
        made = next((each.materializations[0] for each in attempts if each.materializations), None)
        if made is None:
            return None
        given: dict[str, list[tuple[str, Any]]] = {}
        for each in made.inputs:
            if each.kind == "value":
                items = store.history(each.key, limit=_VERSIONS)
                item = next((item for item in items if item.data_version == each.version), None)
                if item is None or item.value is None:
                    raise ValueUnavailableError(
                        f"the value of {each.key!r} that {step_key!r} was given is not stored any more",
                        remedy=f"%stepwell load {each.key} binds what is current",
                    )
                given.setdefault(each.name, []).append((each.key, store.get(item.value, key=each.key)))
        # Members of a fan-in have names that end in brackets.
        return {
            name.removesuffix("[]"): (
                tuple(key for key, _ in values),
                [value for _, value in values] if name.endswith("[]") else values[0][1],
            )
            for name, values in given.items()
        }

    def outputs(self, item: Materialization) -> tuple[CapturedOutput, ...]:
        """Return what the step printed and displayed when it made a materialization."""
        return read_outputs(self.store.catalog, self.store.signer, item.run_id, item.step_key)

    def _stale_notices(self, plan: Plan, found: Definitions, walk: CodeWalk, store: ValueStore) -> tuple[Notice, ...]:
        """Return a notice for each value that the plan reads as it is stored although it is not fresh."""
        owners = {key: found.asset(key) or step_owner(key.split(":", 1)[0], found) for key in plan.read}
        keys = [str(own) for owner in owners.values() if isinstance(owner, AssetsDefinition) for own in owner.keys]
        if not keys:
            return ()
        whole = build_plan(list(dict.fromkeys(keys)), found, walk)
        states = self._states(whole, walk, store)
        notices = []
        for key in plan.read:
            state = states[whole.producers[key].key] if key in whole.producers else None
            if state is not None and state.state not in ("fresh", "missing"):
                cause = state.reasons[0].text if state.reasons else ""
                notices.append(notice("stale input", key, state=state.state, cause=cause))
        return tuple(notices)

    def _outputs_of_step(self, key: str) -> list[str]:
        found = lookup(self.registry)
        owner = step_owner(key, found)
        return (
            [output.key for step in asset_steps(owner) if step.key == key for output in step.outputs]
            if owner is not None
            else []
        )

    # -- how

    def _loaded(self, read: Read, store: ValueStore) -> Materialization:
        """Return what an asset that a step loaded is now."""
        notebook, directory = read.names or ("", "")
        return self.current(
            read.name, self.open(directory, create=False) if directory else store, notebook=notebook or None
        )

    def _walk(self, found: Definitions) -> CodeWalk:
        watch()
        # It is ready when the code is walked.
        warm_up()
        reason = untested()
        if reason:
            self.notify(notice("untested python", reason=reason))
        timeline = self.timeline
        if timeline is None:
            return CodeWalk(asset_names=found.names(), namespace=self.namespace, keyed=users_digest())
        names = timeline.names(found.names())
        return CodeWalk(asset_names=names, namespace=self.namespace, keyed=users_digest(), pin=timeline.pin)

    @contextmanager
    def requesting(
        self, definitions: Iterable[Any], *, cell: bool = False, only_unbound: bool = False
    ) -> Iterator[None]:
        """Plan with assets as requested by name: their cells read the names of the notebook as they are now.

        Parameters
        ----------
        cell
            Whether the cell of the assets runs, which binds its names whoever bound them before.
        only_unbound
            Whether it runs for names that are not bound, and leaves the others as they are.
        """
        timeline = self.timeline
        if timeline is None:
            yield
            return
        before = timeline.requested, timeline.cells, timeline.only_unbound
        steps = [step.key for each in definitions if isinstance(each, AssetsDefinition) for step in asset_steps(each)]
        timeline.requested = frozenset(steps)
        if cell:
            timeline.cells = timeline.requested
            timeline.only_unbound = only_unbound
        try:
            yield
        finally:
            timeline.requested, timeline.cells, timeline.only_unbound = before

    def _in_kernel(self, known: Known) -> None:
        """Have recorded reads from the notebook's kernel checked there."""
        if self.timeline is not None:
            timeline = self.timeline
            known.kind, known.local, known.brought = timeline.kind, timeline.read_holds, timeline.has_brought
            known.made_from = lambda step: timeline.made_from(step.key, step.op.body)

    def _load_current(self, key: str) -> Any:
        return self.load(key)

    def _choose(self, key: str, rows: list[Current], store: ValueStore) -> Materialization | None:
        entry = self.registry.assets.get(key)
        mine = getattr(entry.definition, "notebook", "") if entry is not None else ""
        return choose(key, rows, (mine, self.notebook), store.directory)

    def _settling(self, store: ValueStore, walk: CodeWalk) -> Settling:
        return Settling(store, code_parts(walk), self._not_settled)

    def _states(self, plan: Plan, walk: CodeWalk, store: ValueStore) -> dict[str, StepState]:
        known = known_for(plan, store, self._choose, self._loaded, settle=self._settling(store, walk))
        self._in_kernel(known)
        return plan_states(plan, known, Explainer(store, known, walk, code_parts(walk)))


def _version_of(item: Materialization) -> str:
    return item.data_version or item.id


def code_parts(source: CodeWalk | HiddenState) -> Callable[[PlanStep], CodeVersion | None]:
    """Return a function that gives a step's code version with the parts that explain it."""

    def found(step: PlanStep) -> CodeVersion | None:
        if step.code is None:
            return None
        walk = source.walk if isinstance(source, HiddenState) else source
        parts = walk.parts(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        return CodeVersion(
            step.code.digest, parts, step.code.unverifiable, step.code.asset_names, step.code.mutable_globals
        )

    return found
