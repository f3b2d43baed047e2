"""What a session says and does about time and size: versions, renaming, forgetting, what is kept."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.errors import StepwellError
from stepwell.kernel_runtime.records.events import DefinitionsChanged, Notice, notice
from stepwell.kernel_runtime.records.maintenance import STORE, Collected, Forgotten, Rule
from stepwell.kernel_runtime.session.history import (
    Versions,
    carry_over,
    read_versions,
)
from stepwell.kernel_runtime.session.looking import Looking
from stepwell.kernel_runtime.session.retaining import set_rule
from stepwell.kernel_runtime.store import housekeeping

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

LARGE = 10 << 30
"""Bytes of values above which a session says once what ``gc`` would free."""
FULL = 0.10
"""The part of the disk that is free below which it does."""


class Past(Looking):
    """The history of a session's store, and its size."""

    _told_size = False

    def versions(
        self,
        key: str,
        *,
        notebook: str | None = None,
        partition: str | None = None,
        collapse: bool = True,
        store: Any = None,
    ) -> Versions:
        """Return the versions of a key, newest first; parameters and errors as in `history.read_versions`."""
        return read_versions(self.chosen(store), key, notebook=notebook, partition=partition, collapse=collapse)

    def rename(self, old: str, new: str, *, store: Any = None) -> int:
        """Carry what is stored for an asset over to another key; return how many versions.

        Raises
        ------
        UnknownKeyError, InvalidDefinitionError, InvalidInvocationError, InvariantViolationError
            If there is nothing to carry over, the new key is none or has results, or the old one is an output of a multi-asset.
        """
        count = carry_over(self.chosen(store), old, new, self.notebook)
        self.publish(DefinitionsChanged((old, new)))
        return count

    def forget(self, key: str, *, dry_run: bool = False, store: Any = None) -> Forgotten:
        """Remove every version of a key, of all notebooks, with the steps inside it. Not to be undone.

        Values that another key has too stay.

        Raises
        ------
        UnknownKeyError
            If nothing is stored for it.
        """
        found = housekeeping.forget(self.chosen(store), key, dry_run=dry_run)
        if not dry_run:
            self.publish(DefinitionsChanged(found.keys))
        return found

    def keep(
        self,
        key: str = STORE,
        *,
        versions: int | str | None = None,
        age: float | str | None = None,
        bytes: int | str | None = None,  # noqa: A002 - the word that people type
        forever: bool = False,
        store: Any = None,
    ) -> dict[str, Rule]:
        """Set what is kept of a key, or of the whole store; return the rules that hold. Without limits it only tells.

        Limits that are given replace those of the same name; others stay. Nothing is dropped before `gc`, or the housekeeping after a run.

        Parameters
        ----------
        key
            An asset or step; empty for the whole store.
        versions
            How many of the newest different values are kept, for each notebook and partition.
        age
            Seconds, or ``30d``, after which a version is dropped.
        bytes
            Bytes, or ``10GB``, of all values together.
        forever
            Whether the rule is taken back.

        Raises
        ------
        InvalidInvocationError
            If a limit cannot be read.
        """
        return set_rule(self.chosen(store, create=True), key, versions=versions, age=age, size=bytes, forever=forever)

    def gc(self, *, dry_run: bool = False, compact: bool | None = None, store: Any = None) -> Collected:
        """Delete versions that the rules drop, value files without a row, and what dead processes left; return what was freed."""
        found = housekeeping.collect(self.chosen(store), dry_run=dry_run, compact=compact)
        if found.materializations and not dry_run:
            self.publish(DefinitionsChanged(()))
        return found

    # -- by itself

    def _size_advice(self, store: ValueStore) -> tuple[Notice, ...]:
        """Return one notice, once per session, where the store is large or the disk almost full: what ``gc`` would free."""
        if self._told_size:
            return ()
        try:
            disk = shutil.disk_usage(store.directory)
        except OSError:
            return ()
        sizes = housekeeping.read_sizes(store.folder)
        if sizes is None:
            return ()
        held = sizes.object_bytes + sizes.catalog_bytes
        if held <= LARGE and disk.free >= FULL * disk.total:
            return ()
        self._told_size = True
        found = notice(
            "large store",
            str(store.directory),
            held=held,
            free=disk.free / disk.total,
            garbage=sizes.garbage_bytes,
            older=sizes.older_bytes,
        )
        return (found,)

    def close(self) -> None:
        """Do what is due, commit what is pending and let every store go."""
        for store in self._stores.values():
            if self.last_run is not None and housekeeping.is_due(store):
                _housekeep(store)
        super().close()


def _housekeep(store: ValueStore) -> None:
    try:
        housekeeping.housekeep(store)
    except (StepwellError, OSError) as error:
        print(f"stepwell: the hourly housekeeping failed: {error}", file=sys.stderr)  # noqa: T201 - nobody waits for it
