"""The store: values by content, and the catalog of what is known about them."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import StoreError, ValueUnavailableError
from stepwell.kernel_runtime.records.code import CodeVersion
from stepwell.kernel_runtime.records.materializations import Current, Materialization, StoredValue
from stepwell.kernel_runtime.records.outputs import CapturedOutput
from stepwell.kernel_runtime.records.protocols import Commit
from stepwell.kernel_runtime.records.runs import LogRecord, RunRecord, StepRecord
from stepwell.kernel_runtime.records.snapshot import Snapshot
from stepwell.kernel_runtime.store import codecs, objects, pickling, reading
from stepwell.kernel_runtime.store.attachment import CATALOG, Connection
from stepwell.kernel_runtime.store.catalog import Catalog
from stepwell.kernel_runtime.store.claims import ClaimFolder
from stepwell.kernel_runtime.store.describing import summary, type_name
from stepwell.kernel_runtime.store.remembered import Remembered
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.store.writing import Recorded, RowWriter

INLINE = 64 * 1024
"""Bytes up to which a value is kept in its row."""


class _Shared:
    """What all stores of one directory in one process share: the catalog thread, what it remembers, and the claims."""

    def __init__(self, directory: Path) -> None:
        self.rows = RowWriter()
        self.remembered = Remembered()
        self.catalog = Catalog(directory, self.rows.write, self._ended)
        self.claims = ClaimFolder(directory)

    def _ended(self, records: list[Any], error: BaseException | None) -> None:
        if error is None:
            self.remembered.add([record for record in records if isinstance(record, Recorded)])
        else:
            self.rows.forget()


_shared: weakref.WeakValueDictionary[Path, _Shared] = weakref.WeakValueDictionary()
_shared_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _shared_lock  # noqa: PLW0603 - another thread of the parent may have held it
    _shared_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def open_store(
    path: str | os.PathLike[str], *, create: bool = True, class_version: pickling.ClassVersion | None = None
) -> Store:
    """Open the store in a directory, the one with ``catalog.duckdb``.

    Parameters
    ----------
    path
        The store directory.
    create
        Make it if it is not there.
    class_version
        Returns the code version of a class or function of ``__main__`` that a stored value names.

    Raises
    ------
    StoreError
        If there is no store and ``create`` is false.
    StoreNotWritableError, StoreFormatError, StoreDamagedError
        If the directory cannot be written, a newer Stepwell wrote it, or the catalog cannot be read. Nothing is changed then.
    """
    directory = Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 - Path.resolve fails below a file
    if not create and not (directory / CATALOG).is_file():
        raise StoreError(
            f"there is no store in {directory}",
            remedy="name the directory that has catalog.duckdb in it, or materialize something to make one",
        )
    with _shared_lock:
        place = Path(os.path.realpath(directory))
        shared = _shared.get(place)
        if shared is None:
            shared = _Shared(place)
            _shared[place] = shared
    shared.catalog.open(create=create)
    return Store(directory, shared, class_version)


class Store:
    """Values and catalog of one directory; made by `open_store`. Implements `ValueStore`; every method from any thread."""

    def __init__(self, directory: Path, shared: _Shared, class_version: pickling.ClassVersion | None) -> None:
        self._directory = directory
        self._shared = shared
        self._catalog = shared.catalog
        self._class_version = class_version
        self._signer = Signer()
        self._objects = objects.Objects(directory, self._signer)

    @property
    def claims(self) -> ClaimFolder:
        """Who computes what just now."""
        return self._shared.claims

    @property
    def directory(self) -> Path:
        """The store directory: the one with ``catalog.duckdb``."""
        return self._directory

    def __repr__(self) -> str:
        return f"Store({str(self._directory)!r})"

    # -- values ----------------------------------------------------------------------------------------------------------

    def put(self, value: Any, *, key: str, memo_key: str) -> StoredValue:
        """Write a value's stored form and return where it is; nothing refers to it until a row does.

        Raises
        ------
        UnstorableValueError
            If no codec can bring the value back; names the key, the type and the remedy.
        """
        encoded = codecs.encode(value, key=key, class_version=self._class_version)
        size = encoded.size
        if size <= INLINE and objects.packs(encoded):
            inline = objects.pack(encoded)
            signature = self._signer.sign((encoded.codec.encode(), inline)) if encoded.codec == codecs.PICKLE else None
            return StoredValue(
                encoded.codec,
                objects.inline_digest(encoded),
                size,
                inline,
                None,
                signature,
                type_name(value),
                summary(value),
                encoded.classes,
            )
        found, name = self._objects.write(encoded, key=key, memo_key=memo_key)
        return StoredValue(
            encoded.codec, found, size, None, name, None, type_name(value), summary(value), encoded.classes
        )

    def get(self, stored: StoredValue, *, key: str) -> Any:
        """Load a value: an own copy for the caller unless its type is immutable.

        Raises
        ------
        UntrustedValueError
            If it would execute code and this user's key did not sign it.
        ValueUnavailableError
            If it is missing, damaged, or names a class that is not there or not the same.
        """
        if stored.inline is not None:
            if stored.codec == codecs.PICKLE and not self._signer.verify(
                stored.signature, (stored.codec.encode(), stored.inline)
            ):
                raise objects.untrusted(key, f"in the catalog of {self._directory}")
            try:
                parts = objects.unpack(stored.inline)
            except Exception as error:
                raise ValueUnavailableError(
                    f"the stored value of {key!r} is damaged", remedy=f"materialize {key!r} again"
                ) from error
        elif stored.object_name is not None:
            parts = self._objects.read(stored.object_name, stored.digest, stored.codec, key=key)
        else:
            raise ValueUnavailableError(f"the value of {key!r} was not stored", remedy=f"materialize {key!r} again")
        if stored.classes:
            pickling.check_names(stored.classes, key=key, class_version=self._class_version)
        return codecs.decode(stored.codec, parts.stream, parts.buffers, key=key)

    # -- the catalog, written ------------------------------------------------------------------------------------------

    def begin_run(self, run: RunRecord) -> Commit:
        """Record that a run started."""
        return self._catalog.add(run)

    def record_step(
        self,
        step: StepRecord,
        *,
        current: Sequence[Current] = (),
        code: CodeVersion | None = None,
        outputs: Sequence[CapturedOutput] = (),
        logs: Sequence[LogRecord] = (),
    ) -> Commit:
        """Record one step with its materializations, the parts of its code, its output, and what is current from now on."""
        return self._catalog.add(Recorded(step, current, code, outputs, logs))

    def finish_run(self, run: RunRecord) -> Commit:
        """Record how a run ended."""
        return self._catalog.add(run)

    # -- the catalog, read -----------------------------------------------------------------------------------------------

    def snapshot(
        self,
        keys: Collection[str],
        step_keys: Collection[str],
        code_versions: Collection[str],
        *,
        remember: bool = True,
    ) -> Snapshot:
        """Return what a plan needs in one go.

        Where nothing was written since the last time it is answered from memory, without the lease.
        """
        asked = (frozenset(keys), frozenset(step_keys), frozenset(code_versions))
        remembered = self._shared.remembered
        found = None
        if self._catalog.pending() is None and self._catalog.unchanged():
            found = remembered.snapshot(asked, self._catalog.epoch)
        if found is None:

            def read(connection: Connection, name: str) -> Snapshot:
                fresh = reading.read_snapshot(connection, name, *asked)
                fresh.epoch = self._catalog.epoch
                return remembered.keep(asked, fresh.epoch, fresh) if remember else fresh

            found = self._catalog.ask(read)
        found.missing_files = self._missing_files(found)
        return found

    def is_newest(self, snapshot: Snapshot) -> bool:
        """Tell, without a query, whether no other process wrote since a snapshot was read."""
        return self._catalog.unchanged() and snapshot.epoch == self._catalog.epoch

    def _missing_files(self, snapshot: Snapshot) -> frozenset[str]:
        names = set()
        for executions in snapshot.by_memo_key.values():
            for made in executions:
                for m in made:
                    if m.value is not None and m.value.object_name is not None:
                        names.add(m.value.object_name)
        for pointers in snapshot.current.values():
            for each in pointers:
                value = each.materialization.value
                if value is not None and value.object_name is not None:
                    names.add(value.object_name)
        return frozenset(filter(self._objects.missing, names))

    def current(self, key: str) -> list[Current]:
        """Return what is current for a key in each notebook that defined it, newest first."""
        return self._catalog.ask(lambda connection, name: reading.read_current(connection, name, key))

    def run(self, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]] | None:
        """Return a run and its steps in the order of their records, or None."""
        return self._catalog.ask(lambda connection, name: reading.read_run(connection, name, run_id))

    def runs(self, *, limit: int = 20, batch: str = "") -> list[RunRecord]:
        """Return the newest runs, newest first; only those of a batch execution if one is named."""
        return self._catalog.ask(lambda connection, name: reading.read_runs(connection, name, limit, batch))

    def outputs(self, run_id: str, step_key: str) -> tuple[CapturedOutput, ...]:
        """Return what an executed step printed and displayed."""
        return self._catalog.ask(lambda connection, name: reading.read_outputs(connection, name, run_id, step_key))

    def logs(self, run_id: str, step_key: str = "") -> list[LogRecord]:
        """Return what a run's steps logged, oldest first."""
        return self._catalog.ask(lambda connection, name: reading.read_logs(connection, name, run_id, step_key))

    def code(self, code_version: str) -> CodeVersion | None:
        """Return the parts of a recorded code version, or None."""
        return self._catalog.ask(lambda connection, name: reading.read_code(connection, name, code_version))

    def keys(self) -> list[str]:
        """Return every key that has something current."""
        return self._catalog.ask(reading.read_keys)

    def history(self, key: str, *, limit: int = 20) -> list[Materialization]:
        """Return the newest materializations of a key, newest first."""
        return self._catalog.ask(lambda connection, name: reading.read_history(connection, name, key, limit))

    def sizes(self) -> dict[str, int]:
        """Return ``materializations``, ``runs``, ``objects``, ``object_bytes`` and ``catalog_bytes``."""
        counts = self._catalog.ask(reading.read_counts)
        files, total = self._objects.usage()
        return {
            **counts,
            "objects": files,
            "object_bytes": total,
            "catalog_bytes": (self._directory / CATALOG).stat().st_size,
        }

    def flush(self) -> None:
        """Block until everything recorded so far is committed."""
        self._catalog.flush()

    def close(self) -> None:
        """Commit what is pending and let the catalog go; a later call opens it again."""
        self._catalog.close()
