"""The store in one directory: content-addressed values, and the catalog of materializations, runs and code versions."""

from __future__ import annotations

import os
import struct
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.errors import StoreError, UntrustedValueError, ValueDamagedError, ValueUnavailableError
from stepwell.kernel_runtime.records.materializations import (
    CodeVersion,
    Current,
    Link,
    Linked,
    Materialization,
    StoredValue,
    Verify,
)
from stepwell.kernel_runtime.records.runs import CapturedOutput, LogRecord, Notify, RunRecord, Snapshot, StepRecord
from stepwell.kernel_runtime.store import signing
from stepwell.kernel_runtime.store.catalog import tables
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.lease import SEAL
from stepwell.kernel_runtime.store.catalog.tables import Recorded, Remembered, RowWriter
from stepwell.kernel_runtime.store.catalog.thread import Catalog
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects import value_files
from stepwell.kernel_runtime.store.objects.checked import Marks, set_aside
from stepwell.kernel_runtime.store.objects.header import about as about_row
from stepwell.kernel_runtime.store.objects.value_files import lacking
from stepwell.kernel_runtime.store.processes import Claims, Unrecorded
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.store.trouble import trouble, unusable_directory, with_store_errors
from stepwell.kernel_runtime.store.values import codecs, round_trip
from stepwell.kernel_runtime.store.values.loading import CodeReader, Loading, discard, other_libraries
from stepwell.kernel_runtime.store.values.structure import summary, type_name

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.catalog.thread import Commit

INLINE = 64 * 1024
"""Maximum size in bytes of a value that is stored in its catalog row."""


class _Shared:
    """State that all `ValueStore` objects of one directory share within a process, such as the catalog thread and the claims."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.rows = RowWriter()
        self.remembered = Remembered()
        self.unrecorded = Unrecorded(folder)
        self.catalog = Catalog(folder, self.rows.write, self._after_commit)
        self.marks = Marks(folder)
        self.claims = Claims(folder)
        self.same_libraries: dict[tuple[tuple[str, str], ...], bool] = {}
        """Maps the library versions with which a value was written to True if the same versions are installed."""
        self.load_errors: dict[str, str] = {}
        """Maps the digest of a value written with other library versions to the reason why it does not load; empty if it loads."""

    def _after_commit(self, records: list[Any], error: BaseException | None) -> None:
        if error is None:
            recorded = [record for record in records if isinstance(record, Recorded)]
            self.remembered.add(recorded)
            self.unrecorded.remove_recorded(
                m.value.object_name
                for record in recorded
                if record.step.status != "reused"
                for m in record.step.materializations
                if m.value is not None and m.value.object_name is not None
            )
        else:
            self.rows.forget()


_shared: weakref.WeakValueDictionary[Path, _Shared] = weakref.WeakValueDictionary()
_shared_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _shared_lock  # noqa: PLW0603 - another thread of the parent may have held the lock
    _shared_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def open_store(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    follow: bool = True,
    code: CodeReader | None = None,
    notify: Notify = discard,
) -> ValueStore:
    """Open the store in a directory.

    Parameters
    ----------
    path
        The store directory, which contains ``catalog.duckdb``.
    create
        True to create the store if it does not exist.
    follow
        True if the path may be a link to a directory, because the user named this path.
    code
        Reads the code of the notebook's classes and functions to which a value refers.
    notify
        Called with a notice if a value is stored or loaded in an unexpected way.

    Returns
    -------
    ValueStore
        The store, whose catalog has been attached once to check it.

    Raises
    ------
    StoreError
        If there is no store and ``create`` is false.
    UntrustedStoreError
        If the directory contains an entry that a store never contains, such as a link, a pipe or another user's file.
    StoreNotWritableError, StoreFormatError, StoreDamagedError
        If the directory cannot be written, a newer Stepwell wrote the store, or the catalog cannot be read. Nothing is changed in these cases.
    """
    directory = Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 - Path.resolve fails below a file
    folder = Folder(directory, follow=follow)
    try:
        folder.examine()
        exists = folder.exists(CATALOG) or folder.exists(SEAL)
    except (FileNotFoundError, NotADirectoryError):
        exists = False
    except OSError as error:
        raise unusable_directory(directory, error) from error
    if not create and not exists:
        raise StoreError(
            f"there is no store in {directory}",
            remedy="name the directory that contains catalog.duckdb, or materialize an asset to create a store",
        )
    with _shared_lock:
        real_path = Path(os.path.realpath(directory))
        shared = _shared.get(real_path)
        if shared is None:
            # The resolved path contains no links now, and a link that is planted later is not followed.
            shared = _Shared(Folder(real_path, follow=False))
            _shared[real_path] = shared
    if notify is not discard:
        shared.catalog.notify = notify
    shared.catalog.open(create=create)
    return ValueStore(directory, shared, code or CodeReader(), notify)


class ValueStore:
    """Values and catalog of one directory, opened by `open_store`. Every method may be called from any thread.

    Methods that read the catalog block until they have the answer. Other queries (`catalog.tables`) are run with the attribute `catalog`.
    The functions of `housekeeping`, `retention`, `packs` and `trust` take a `ValueStore` as an argument.
    """

    def __init__(self, directory: Path, shared: _Shared, code: CodeReader, notify: Notify) -> None:
        self.directory = directory
        """The store directory, which contains ``catalog.duckdb``."""
        self.folder = shared.folder
        """The `Folder` by which files in the store directory are accessed."""
        self.catalog = shared.catalog
        """The catalog; it runs functions on the catalog thread, with a connection and the catalog's name as arguments."""
        self.claims = shared.claims
        """The claims of long steps."""
        self.signer = Signer()
        self.objects = value_files.Objects(self.folder, self.signer, shared.unrecorded)
        self._shared = shared
        self._code = code
        self._notify = notify
        self._loading = Loading(code, notify, self.folder)
        """The context of the last load, which the next load usually can reuse."""

    def __repr__(self) -> str:
        return f"ValueStore({str(self.directory)!r})"

    # -- values ----------------------------------------------------------------------------------------------------------

    def put(
        self,
        value: Any,
        *,
        key: str,
        memo_key: str,
        about: Callable[[], Materialization] | None = None,
        portable: bool = False,
    ) -> StoredValue:
        """Write the stored form of a value and return a reference to it. No row refers to the value until its step is recorded.

        Parameters
        ----------
        value
            The value.
        key, memo_key
            The keys of the value and of its step.
        about
            Returns the materialization without its value, for the header of a value file. Called only if a file is written.
        portable
            True if the standard pickle module must be able to transfer the value, because the step may run in another process.

        Raises
        ------
        UnstorableValueError
            If no codec can restore the value.
        """
        encoded = codecs.encode(value, key=key, code=self._code, portable=portable)
        # A value with links can be loaded only in its notebook, so it is not checked here. If loading fails, its step runs again.
        if encoded.kinds and type(value) is not Linked:
            round_trip.check(value, encoded, key=key, code=self._code, witnesses=self.objects.witnesses)
        for notice in encoded.notices:
            self._notify(notice)
        stored = self._put(value, encoded, key, memo_key, about)
        self._shared.marks.remove(stored.digest)
        return stored

    def _put(
        self,
        value: Any,
        encoded: codecs.Encoded,
        key: str,
        memo_key: str,
        about: Callable[[], Materialization] | None,
    ) -> StoredValue:
        kind, shape = _kind_of(value), _summary_of(value)
        if type(value) in {str, bytes} and self._code.hides("", value):
            # Listings and packs show the summary, so it must not contain the secret.
            shape = f"{len(value):,} {'characters' if type(value) is str else 'bytes'}"
        size = encoded.size
        if size <= INLINE and codecs.can_pack(encoded):
            inline = codecs.pack(encoded)
            signature = self.signer.sign((encoded.codec.encode(), inline)) if encoded.codec == codecs.PICKLE else None
            return StoredValue(
                encoded.codec,
                codecs.inline_digest(encoded.codec, encoded.stream, encoded.buffers),
                size,
                inline,
                None,
                signature,
                kind,
                shape,
                encoded.classes,
            )
        description = {"type_name": kind, "summary": shape, "about": about_row(about()) if about is not None else {}}
        digest, name = self.objects.write(encoded, key=key, memo_key=memo_key, about=description)
        return StoredValue(encoded.codec, digest, size, None, name, None, kind, shape, encoded.classes)

    @with_store_errors
    def get(self, stored: StoredValue, *, key: str, verify: Verify = "signed", link: Link | None = None) -> Any:
        """Load a value. The caller gets a new copy unless the type is immutable.

        Parameters
        ----------
        stored
            The reference to the stored value.
        key
            The key of the value, for messages.
        verify
            ``full`` checks every byte. ``signed`` checks the bytes that would be executed, and each file as a whole only once after each
            start of the machine.
        link
            Returns the object to which a link in the value refers.

        Raises
        ------
        UntrustedValueError
            If loading would execute code that is not signed with this user's key.
        ValueDamagedError
            If the stored bytes have changed.
        ValueUnavailableError
            If the value is missing, or refers to a class that is missing or has changed.
        """
        try:
            value = self._get(stored, key, full=verify == "full", link=link)
        except ValueDamagedError:
            if stored.object_name is not None:
                set_aside(self.folder, stored.object_name)
            else:
                self._shared.marks.add(stored.digest)
            raise
        except UntrustedValueError:
            raise
        except ValueUnavailableError:
            self._shared.marks.add(stored.digest)
            raise
        self._shared.marks.remove(stored.digest)
        return value

    def _get(self, stored: StoredValue, key: str, *, full: bool, link: Link | None = None) -> Any:
        if stored.inline is not None:
            signed = stored.codec == codecs.PICKLE
            if signed and not self.signer.verify(stored.signature, (stored.codec.encode(), stored.inline)):
                raise value_files.untrusted(key, f"in the catalog of {self.directory}", stored.signature, self.signer)
            try:
                parts = codecs.unpack(stored.inline)
                # A valid signature makes the digest redundant, because it covers the same bytes.
                if (full or not signed) and codecs.inline_digest(
                    stored.codec, parts.stream, parts.buffers
                ) != stored.digest:
                    raise ValueError("its contents changed")  # noqa: TRY301 - reported like sizes that do not fit
            except (ValueError, struct.error) as error:
                raise ValueDamagedError(
                    f"the stored value of {key!r} is damaged: {error}", remedy=f"materialize {key!r} again"
                ) from error
        elif stored.object_name is not None:
            parts = self.objects.read(stored.object_name, stored.digest, stored.codec, key=key, full=full)
        else:
            raise ValueUnavailableError(f"the value of {key!r} was not stored", remedy=f"materialize {key!r} again")
        check = stored.inline is not None or parts.unchecked is not None
        loading = self._loading
        if loading.libraries != stored.classes or loading.check != check or link is not None:
            loading = Loading(self._code, self._notify, self.folder, stored.classes, check, link)
            if link is None:
                self._loading = loading
        try:
            value = codecs.decode(stored.codec, parts.stream, parts.buffers, key=key, loading=loading)
        except MemoryError as error:
            raise trouble(error, f"the stored value of {key!r} cannot be loaded") or error from error
        if stored.object_name is not None and parts.unchecked is not None:
            self.objects.mark_checked(stored.object_name, parts.unchecked)
        return value

    def obstacle(self, stored: StoredValue, *, key: str) -> str:
        """Return the reason why a value does not load; empty if it loads or is presumed to load.

        The value is actually loaded if an earlier load failed. It is also loaded, once per process, if it was written with other versions
        of its libraries than those installed, which can usually read it.
        """
        if stored.digest in self._shared.marks:
            return self._load_error(stored, key)
        written = stored.classes
        same = self._shared.same_libraries.get(written)
        if same is None:
            same = self._shared.same_libraries[written] = not other_libraries(written, self._code.owner)
        if same:
            return ""
        reason = self._shared.load_errors.get(stored.digest)
        if reason is None:
            reason = self._shared.load_errors[stored.digest] = self._load_error(stored, key)
        return reason

    def _load_error(self, stored: StoredValue, key: str) -> str:
        """Load a value and return the reason why it does not load; empty if it loads."""
        try:
            self.get(stored, key=key)
        except ValueUnavailableError as error:
            return error.what.replace(f"the stored value of {key!r}", "its stored value")
        return ""

    # -- writing to the catalog ----------------------------------------------------------------------------------------

    def begin_run(self, run: RunRecord) -> Commit:
        """Record the start of a run."""
        return self.catalog.add(run)

    def record_step(
        self,
        step: StepRecord,
        *,
        current: Sequence[Current] = (),
        code: CodeVersion | None = None,
        outputs: Sequence[CapturedOutput] = (),
        logs: Sequence[LogRecord] = (),
    ) -> Commit:
        """Record a step with its materializations, code version, outputs and log, and the pointers to its current results."""
        return self.catalog.add(Recorded(step, current, code, signing.sealed(outputs, self.signer), logs))

    def finish_run(self, run: RunRecord) -> Commit:
        """Record the end of a run."""
        return self.catalog.add(run)

    # -- reading the catalog ---------------------------------------------------------------------------------------------

    @with_store_errors
    def snapshot(
        self,
        keys: Collection[str],
        step_keys: Collection[str],
        code_versions: Collection[str],
        *,
        remember: bool = True,
    ) -> Snapshot:
        """Return all rows that a plan needs, with one question to the catalog.

        If no other process has written since the last call with the same arguments, the snapshot comes from memory, without the lease.
        """
        request = (frozenset(keys), frozenset(step_keys), frozenset(code_versions))
        remembered = self._shared.remembered
        self._shared.rows.expected_codes = request[2]
        snapshot = None
        if self.catalog.pending() is None and self.catalog.unchanged():
            snapshot = remembered.snapshot(request, self.catalog.epoch)
        if snapshot is None:

            def read(connection: Connection, name: str) -> Snapshot:
                fresh = tables.read_snapshot(connection, name, *request)
                fresh.epoch = self.catalog.epoch
                return remembered.keep(request, fresh.epoch, fresh) if remember else fresh

            snapshot = self.catalog.ask(read)
        snapshot.missing_files, snapshot.foreign = lacking(snapshot, self.objects, self.signer)
        return snapshot

    def is_newest(self, snapshot: Snapshot) -> bool:
        """Return True if no other process has written since a snapshot was read. This needs no query."""
        return self.catalog.unchanged() and snapshot.epoch == self.catalog.epoch

    def current(self, key: str) -> list[Current]:
        """Return the current materialization of a key in each notebook that defined it, newest first."""
        return self.catalog.ask(tables.read_current, key)

    def history(self, key: str, *, limit: int = 20) -> list[Materialization]:
        """Return the newest materializations of a key, newest first."""
        return self.catalog.ask(tables.read_history, key, limit)

    def keys(self) -> list[str]:
        """Return every key that has a current materialization."""
        return self.catalog.ask(tables.read_keys)

    def codes(self, code_versions: Collection[str]) -> dict[str, CodeVersion]:
        """Return recorded code versions with their parts, by digest, with one query."""
        return self.catalog.ask(tables.read_codes, code_versions)

    def run(self, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]] | None:
        """Return a run and its steps in the order in which they were recorded; None if there is no such run."""
        return self.catalog.ask(tables.read_run, run_id)

    def runs(self, *, limit: int = 20, batch: str = "") -> list[RunRecord]:
        """Return the newest runs, newest first; if ``batch`` is not empty, only the runs of this batch."""
        return self.catalog.ask(tables.read_runs, limit, batch)

    def flush(self) -> None:
        """Block until all pending records are committed."""
        self.catalog.flush()

    def close(self) -> None:
        """Commit pending records and release the catalog; a later call of any method opens the catalog again."""
        self.catalog.close()
        self._shared.unrecorded.close()


def _kind_of(value: Any) -> str:
    """Return the name of a value's type for messages."""
    return "variables" if type(value) is Linked else type_name(value)


def _summary_of(value: Any) -> str:
    return "" if type(value) is Linked else summary(value)
