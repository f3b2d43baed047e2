"""The memo key of a step once its inputs are known, and what the store has under it.

The scheduler and the rebuilder are separate things: who runs steps asks here whether one must run, and why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.reads import what_changed
from stepwell.kernel_runtime.records.materializations import (
    LOCAL,
    Current,
    InputVersion,
    Materialization,
    Read,
    Unverifiable,
    acceptance,
    memo_key,
    revoked_run,
)
from stepwell.kernel_runtime.records.runs import Snapshot
from stepwell.kernel_runtime.text import age_text

_SKEW = 1.0
"""Seconds by which another process's clock may be ahead."""


@dataclass(slots=True)
class Known:
    """What is known of the store's contents during one run.

    Attributes
    ----------
    vouches
        Tells whether a trusted key signed a whole record: what it says of effects is not looked at before.
    values
        For each value key its materialization in this run: made, reused, or read from the store.
    obstacle
        Returns why a stored value is known not to load, empty if nothing is known.
    now
        When this was found, in seconds since the epoch: what ages are measured from.
    """

    snapshot: Snapshot
    read_holds: Callable[[Read], bool]
    vouches: Callable[[Materialization], bool]
    values: dict[str, Materialization] = field(default_factory=dict)
    obstacle: Callable[[Materialization], str] = field(default=lambda item: "")  # noqa: ARG005 - where all that is stored can be loaded
    now: float = field(default_factory=time.time)
    local: Callable[[Read, str, Materialization], bool] | None = None
    """Tells whether what a step read from the kernel itself holds: variables that texts name, random streams; None outside notebooks."""
    kept: Callable[[str, Materialization], bool] | None = None
    """Tells whether a step gave a materialization in this kernel and its cell is not what runs: then what cannot be compared stays as it is."""
    brought: Callable[[str, Materialization], bool] | None = None
    """Returns True for the materialization that a step gave in this kernel last; None outside notebooks."""
    made_from: Callable[[PlanStep], Mapping[str, str]] | None = None
    """Returns what a step reads through variables that plain cells made from assets: by key of a step or asset, the variable."""
    _checked: dict[Read, bool] = field(default_factory=dict)

    def holds(self, read: Read, step: PlanStep | None = None, item: Materialization | None = None) -> bool:
        """Tell whether the world still is as it was read; asked once per run."""
        if read.kind == "asset":
            # It may be materialized in this run; where a notebook or store was named, only the session knows which.
            item = None if read.names else self.values.get(read.name)
            return self.read_holds(read) if item is None else (item.data_version or item.id) == read.digest
        if read.kind in LOCAL and self.local is not None and step is not None and item is not None:
            return self.local(read, step.key, item)
        found = self._checked.get(read)
        if found is None:
            found = self._checked[read] = self.read_holds(read)
        if not found and self.local is not None and step is not None and item is not None:
            # The step itself, or a later one, may have changed it in this kernel.
            return self.local(read, step.key, item)
        return found

    def look_again(self, found: Snapshot) -> None:
        """Take what the store has by now for the steps and keys of a later snapshot; the world may have changed with it."""
        self.snapshot.take(found)
        self._checked.clear()

    def forget_checks(self) -> None:
        """Check recorded reads again: effects of a step have changed the world."""
        self._checked.clear()

    def inputs(self, step: PlanStep) -> tuple[InputVersion, ...] | None:
        """Return the versions of a step's inputs, or None if one has no materialization."""
        values = self.values
        found = []
        for given in step.inputs:
            if given.fan_in:
                members = [values[key] for key in given.keys if key in values]
                found += [_version(f"{given.name}[]", item, given.carries_value) for item in members]
            else:
                for key in given.keys:
                    item = values.get(key)
                    if item is None:
                        if not given.carries_value:
                            continue
                        return None
                    found.append(_version(given.name, item, given.carries_value))
        return tuple(found)

    def key(self, step: PlanStep, inputs: Iterable[InputVersion]) -> str:
        """Return the memo key of a step; empty for one that is not memoised."""
        return memo_key(step.address, step.code.digest, inputs) if step.code is not None else ""

    def hit(self, step: PlanStep, memo: str) -> tuple[Materialization, ...] | None:
        """Return the newest execution under a memo key that can be reused, or None.

        One is not reused if something it read has changed, something it reached has no digest, or an output that must be
        there is not. One that another user's key signed comes after all others: its value counts as missing.
        """
        if not step.memoised or step.op.volatile or not memo:
            return None
        found = self.snapshot.by_memo_key.get(memo)
        if not found:
            return None
        max_age = step.op.max_age
        unseen = step.code.unverifiable if step.code is not None else ()
        revoked: set[str] = set()
        foreign: tuple[Materialization, ...] | None = None
        chosen: tuple[Materialization, ...] | None = None
        brought = self.brought if len(found) > 1 else None
        for group in found:
            taken_back = revoked_run(group[0])
            if taken_back:
                revoked.add(taken_back)
            if taken_back or group[0].run_id in revoked:
                continue
            if chosen is not None and brought is not None and not brought(step.key, group[0]):
                continue
            kept = self.kept is not None and self.kept(step.key, group[0])
            if unseen and not kept and not _accepts(group[0], unseen):
                continue
            if max_age is not None and not self.is_young(group, max_age):
                continue
            if not kept and any([item.unverifiable for item in group]):  # noqa: C419 - a list is quicker for one or two
                continue
            acted = [item for item in group if not item.data_version]
            if acted and not all(self._is_newest(item) for item in acted):
                # It changed the world: what an older one did is undone by now, so only the newest counts.
                return chosen
            reads = group[0].reads
            if _complete(step, group) and (not reads or all(self.holds(read, step, group[0]) for read in reads)):
                if not self.snapshot.foreign or not any(item.id in self.snapshot.foreign for item in group):
                    if brought is None or brought(step.key, group[0]):
                        return group
                    # An older one may have given what this kernel's notebook has now.
                    chosen = chosen or group
                else:
                    foreign = foreign or group
            if acted:
                return chosen
        return chosen or foreign

    def refusal(self, step: PlanStep, memo: str) -> str:
        """Return why `hit` reuses no execution of a step although one may have its memo key; empty if none has."""
        if not step.memoised:
            return "cache=False: it runs in every run"
        if step.op.volatile:
            return "volatile: it runs in every run"
        if step.code is not None and step.code.unverifiable:
            item = step.code.unverifiable[0]
            return f"{item.path} has no digest ({item.reason})"
        found = self.snapshot.by_memo_key.get(memo)
        if not memo or not found:
            return ""
        newest = found[0]
        if revoked_run(newest[0]):
            return "what was accepted for it was revoked"
        if newest[0].unverifiable:
            return f"{newest[0].unverifiable[0]} had no digest"
        if step.op.max_age is not None and not self.is_young(newest, step.op.max_age):
            return f"older than its greatest age of {age_text(step.op.max_age)}"
        changed = next((read for read in newest[0].reads if not self.holds(read, step, newest[0])), None)
        if changed is not None:
            return what_changed(changed)
        lost = next((why for item in newest if (why := self.lost(item))), "")
        acted = any(not item.data_version for item in newest)
        return lost or ("another version of it has acted since" if acted else "")

    def is_young(self, group: tuple[Materialization, ...], max_age: float) -> bool:
        """Tell whether an execution is younger than an age in seconds, as of the start of the run.

        One from the future was made before a clock was set back: how old it is cannot be known.
        """
        latest = time.time() + _SKEW
        return all(self.now - item.created < max_age and item.created <= latest for item in group)

    def _is_newest(self, item: Materialization) -> bool:
        """Tell whether no later materialization of the key is known, under whatever memo key: by the order of the commits, not by a clock."""
        newest = next((row for row in self.snapshot.current.get(item.key, ()) if row.partition == item.partition), None)
        return newest is None or newest.materialization.id == item.id

    def lost(self, item: Materialization) -> str:
        """Return why a materialization's value is known not to be there for us, empty if it is."""
        value = item.value
        if value is None:
            return ""
        if item.id in self.snapshot.foreign:
            return f"signed with another key ({self.snapshot.foreign[item.id]}): loading it could run any code"
        if value.object_name is not None and value.object_name in self.snapshot.missing_files:
            return "its file is gone from the store, or cut short"
        return self.obstacle(item)


def _accepts(item: Materialization, unseen: tuple[Unverifiable, ...]) -> bool:
    """Tell whether a materialization was accepted although exactly this could not be digested."""
    note = acceptance(item)
    return note is not None and note.get("unverifiable") == [f"{each.path}: {each.reason}" for each in unseen]


def _version(name: str, item: Materialization, carries_value: bool) -> InputVersion:
    if carries_value and item.data_version:
        return InputVersion(name, item.key, item.data_version, "value")
    return InputVersion(name, item.key, item.id, "order")


def _complete(step: PlanStep, group: tuple[Materialization, ...]) -> bool:
    if len(step.outputs) == 1 and len(group) == 1:
        return group[0].key == step.outputs[0].key
    made = {item.key for item in group}
    return all(output.key in made for output in step.outputs if output.required)


def choose_current(rows: list[Current], notebook: str) -> Materialization | None:
    """Return what a key means for a notebook: its own current materialization, else the newest of another's."""
    for row in rows:
        if row.notebook == notebook:
            return row.materialization
    return rows[0].materialization if rows else None
