"""The view of one request: definitions with their code versions, a store, and the store's knowledge of a plan.

Every request makes an `Inspection`, for states as well as for runs. It memoises code versions by object, so an object that several steps use is
digested once per request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import source_of
from stepwell.kernel_runtime.errors import StepwellError, StoreError
from stepwell.kernel_runtime.execution.notebook import StoredCells
from stepwell.kernel_runtime.execution.timeline import Timeline
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
from stepwell.kernel_runtime.planning.plan import Plan, PlanStep, asset_steps
from stepwell.kernel_runtime.planning.states import StepState, lineage_of, plan_states
from stepwell.kernel_runtime.reads import read_holds
from stepwell.kernel_runtime.records.materializations import CodeVersion, Current, Materialization, Read
from stepwell.kernel_runtime.records.runs import Lineage
from stepwell.kernel_runtime.session.reasons import Explainer
from stepwell.kernel_runtime.store.signing import Signer, vouches
from stepwell.kernel_runtime.versions.environment import Keyed, process_keyed
from stepwell.kernel_runtime.versions.secrets import environment_now, hidden_source
from stepwell.kernel_runtime.versions.walk import CodeWalk

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

Choose: TypeAlias = "Callable[[str, list[Current], ValueStore], Materialization | None]"
Find: TypeAlias = "Callable[[Read, ValueStore], Materialization]"


class Inspection:
    """The definitions, code versions and store of one request.

    Parameters
    ----------
    definitions
        The definitions by key.
    new_walk
        Makes a walk, which computes code versions; called at the first use.
    open_store
        Opens the store; called at the first use, so that a request that cannot be planned does not create a store.
    choose
        Selects the current materialization of a key from those of several notebooks.
    find
        Returns the current materialization of an asset that a step loaded.
    timeline
        The history of the notebook's names; None outside of a notebook.
    """

    def __init__(
        self,
        definitions: Definitions,
        new_walk: Callable[[], CodeWalk],
        open_store: Callable[[], ValueStore],
        *,
        choose: Choose,
        find: Find,
        timeline: Timeline | None,
    ) -> None:
        self.definitions = definitions
        self.new_walk = new_walk
        self._open_store = open_store
        self._choose = choose
        self.find = find
        self._timeline = timeline

    @cached_property
    def walk(self) -> CodeWalk:
        """The code versions of the request."""
        return self.new_walk()

    @cached_property
    def store(self) -> ValueStore:
        """The store of the request."""
        return self._open_store()

    # -- plans

    def plan(self, words: Sequence[str] | None = None, *, upstream: bool = True) -> Plan:
        """Return the plan of keys and selections with everything upstream; by default of all registered assets."""
        return build_plan(resolve_targets(words, self.definitions), self.definitions, self.walk, upstream=upstream)

    def plan_of(self, key: str) -> Plan:
        """Return the plan of the asset with a key, or of the asset that has a step, with everything upstream."""
        return build_plan([str(asset_key) for asset_key in self._owner(key).keys], self.definitions, self.walk)

    def steps_of(self, key: str) -> list[str]:
        """Return the keys of the steps of an asset, or the key of one step, in the order of the definition.

        Raises
        ------
        UnknownKeyError
            If nothing has this key.
        """
        steps = [step.key for step in asset_steps(self._owner(key))]
        return [key] if key in steps else steps

    def _owner(self, key: str) -> AssetsDefinition:
        owner = self.definitions.asset(key)
        if not isinstance(owner, AssetsDefinition):
            owner = step_owner(key, self.definitions)
        if owner is None:
            raise unknown_step(key, self.definitions, self.definitions.keys)
        return owner

    # -- the store's knowledge of a plan

    def known(self, plan: Plan, produced: Mapping[str, Materialization] | None = None) -> Known:
        """Return the store's knowledge of the steps of a plan and of the values that the plan reads.

        Parameters
        ----------
        produced
            Materializations of values that no step of the plan produces, from the run that is resumed.
        """
        store = self.store
        keys = [output.key for step in plan.steps for output in step.outputs]
        codes = {step.code.digest for step in plan.steps if step.code is not None}
        snapshot = store.snapshot([*keys, *plan.read], [step.address for step in plan.steps], codes)
        known = Known(
            snapshot,
            _still_holds(store, self.find),
            partial(vouches, store.signer),
            obstacle=lambda item: store.obstacle(item.value, key=item.key) if item.value is not None else "",
            now=time.time(),
        )
        for key in plan.read:
            if key in plan.absent:
                continue
            item = produced.get(key) if produced else None
            if item is None:
                rows = snapshot.current.get(key)
                item = self._choose(key, rows, store) if rows else None
            if item is not None:
                known.values[key] = item
        if (timeline := self._timeline) is not None:
            known.kind, known.local, known.brought = timeline.kind, timeline.read_holds, timeline.has_brought
            known.unrestorable = StoredCells(timeline, store, strict=bool(os.environ.get("STEPWELL_STRICT"))).obstacle
            known.made_from = lambda step: timeline.made_from(step.key, step.op.body)
        return known

    def states(self, plan: Plan, known: Known | None = None) -> dict[str, StepState]:
        """Return the states of the steps of a plan in execution order."""
        known = known or self.known(plan)
        return plan_states(plan, known, Explainer(self.store, known, self.walk, code_parts(self.walk)))

    def lineage(self) -> Lineage:
        """Return all registered definitions as cards and edges."""
        plan, definitions = self.plan(), self.definitions
        jobs = [(job, build_job_plan(job, self.walk)) for job in definitions.jobs.values()]
        environment, timeline = environment_now(), self._timeline
        return lineage_of(
            plan,
            self.states(plan),
            definitions,
            jobs,
            lambda body: hidden_source(source_of(body), environment),
            left_by=lambda step: timeline.left_by(step.key, step.op.body) if timeline is not None else (),
        )


def _still_holds(store: ValueStore, find: Find) -> Callable[[Read], bool]:
    """Return a function that checks whether a recorded read still has the same result."""
    signer = Signer()

    def holds(read: Read) -> bool:
        if read.kind != "asset":
            return read_holds(read, signer.keyed)
        try:
            item = find(read, store)
        except StepwellError:
            return False
        return (item.data_version or item.id) == read.digest

    return holds


def code_parts(source: CodeWalk | HiddenState) -> Callable[[PlanStep], CodeVersion | None]:
    """Return a function that returns a step's code version with its parts."""

    def parts_of(step: PlanStep) -> CodeVersion | None:
        if step.code is None:
            return None
        walk = source.walk if isinstance(source, HiddenState) else source
        parts = walk.parts(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        return CodeVersion(
            step.code.digest, parts, step.code.unverifiable, step.code.asset_names, step.code.mutable_globals
        )

    return parts_of


def users_digest() -> Keyed:
    """Return a function that digests data with the user's key, or with a key of this process if the user has none."""
    signer = Signer()

    def keyed(data: bytes) -> str:
        try:
            return signer.keyed(data)
        except StoreError:
            return process_keyed(data)

    return keyed
