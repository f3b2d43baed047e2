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
"""Maximum size in bytes of a value that is stored in its catalog row instead of a value file."""


class _Shared:
    """State that all `ValueStore` objects of one store directory share within a process: the catalog thread, the claims and caches."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.rows = RowWriter()
        self.remembered = Remembered()
        self.unrecorded = Unrecorded(folder)
        self.catalog = Catalog(folder, self.rows.write, self._after_commit)
        self.marks = Marks(folder)
        self.claims = Claims(folder)
        self.same_libraries: dict[tuple[tuple[str, str], ...], bool] = {}
        """Maps a tuple from the field `StoredValue.classes` to True if the library versions in it are the installed ones, else to False."""
        self.load_errors: dict[str, str] = {}
        """For values that were written with library versions other than the installed ones: maps the digest of the stored value to the reason why
        it does not load, or to an empty string if it loads."""

    def _after_commit(self, records: list[Any], error: BaseException | None) -> None:
        """Update the caches after a commit of ``records``. ``error`` is None if the commit succeeded. Called on the catalog thread."""
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
    global _shared_lock  # noqa: PLW0603 - at the fork, another thread of the parent may have held the lock
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
        The store directory: the folder that contains ``catalog.duckdb``.
    create
        True to create the store if it does not exist.
    follow
        True if ``path`` may be a symbolic link to the store directory. Pass True only if the user named this path.
    code
        Reads the code of those classes and functions of the notebook to which a stored value refers. If it is None, these classes and
        functions are identified by name alone.
    notify
        Called with each notice for the user about a value that is stored or loaded, or about the store.

    Returns
    -------
    ValueStore
        The open store. Its catalog has been attached once, so that an unusable catalog is detected here.

    Raises
    ------
    StoreError
        If there is no store at ``path`` and ``create`` is false.
    UntrustedStoreError
        If the directory contains a link, a pipe or another user's file, or the catalog contains a view or a trigger.
    StoreNotWritableError
        If the store directory cannot be created, or files in it cannot be opened.
    StoreFormatError
        If a newer version of Stepwell or DuckDB wrote the store.
    StoreDamagedError
        If the catalog cannot be read or lacks acknowledged commits. The store is then not changed.
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
            # The resolved path contains no links. If a link is put there later, it is not followed.
            shared = _Shared(Folder(real_path, follow=False))
            _shared[real_path] = shared
    if notify is not discard:
        shared.catalog.notify = notify
    shared.catalog.open(create=create)
    return ValueStore(directory, shared, code or CodeReader(), notify)


class ValueStore:
    """The values and the catalog of one store, opened by `open_store`. Every method may be called from any thread.

    A method that reads the catalog blocks until the catalog thread has read it. For queries without a method here, pass a function of
    `catalog.tables` to ``store.catalog.ask``. The functions of `housekeeping`, `retention`, `packs` and `trust` take a `ValueStore` as their
    first argument.
    """

    def __init__(self, directory: Path, shared: _Shared, code: CodeReader, notify: Notify) -> None:
        self.directory = directory
        """The path of the store directory, the folder that contains ``catalog.duckdb``."""
        self.folder = shared.folder
        """Access to the files in the store directory."""
        self.catalog = shared.catalog
        """The catalog. It calls functions on the catalog thread, with a connection and the name of the attached catalog as arguments."""
        self.claims = shared.claims
        """The claims of the memo keys of long steps."""
        self.signer = Signer()
        """Signs and verifies with this user's key."""
        self.objects = value_files.Objects(self.folder, self.signer, shared.unrecorded)
        """The value files."""
        self._shared = shared
        self._code = code
        self._notify = notify
        self._loading = Loading(code, notify, self.folder)
        """The context in which the last value without links was loaded. If the next load needs an equal context, this object is reused."""

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
        """Store a value, and return a reference to the stored form. The value becomes available for reuse when its step is recorded.

        Parameters
        ----------
        value
            The value.
        key, memo_key
            The key of the value, and the memo key of the step that computed it.
        about
            A function that returns the materialization for the header of the value file, with None in the field ``value``. The function is called
            only if a value file is written. Pass None if the header needs no materialization.
        portable
            True to refuse exception objects that plain pickle cannot transfer to another process, because the step may run in another process.

        Raises
        ------
        UnstorableValueError
            If the value cannot be stored in a form from which it can be loaded again.
        """
        encoded = codecs.encode(value, key=key, code=self._code, portable=portable)
        # A value with links can be loaded only in its notebook, so no test load is possible here. If a later load fails, the step runs again.
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
            # Listings and packs show the summary of a value, so the summary of a secret must not contain the secret.
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
        """Load a stored value. Each call returns a new object, unless the type of the value is immutable.

        Parameters
        ----------
        stored
            The reference that `put` returned.
        key
            The key of the value, for messages.
        verify
            ``full`` checks every byte of the stored form. ``signed`` checks the bytes that would be executed, and checks a whole value file
            only at its first load after each start of the machine, and after each change of the file.
        link
            A function that returns the object for the identifier in a link of the value (see `Link`). Pass None if the value has no links.

        Raises
        ------
        UntrustedValueError
            If loading the value would execute code that is not signed with this user's key.
        ValueDamagedError
            If the stored bytes have changed.
        ValueUnavailableError
            If the stored form is missing, or the value refers to a class that is missing or has changed.
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
                # If the signature is valid, the digest need not be checked, because the signature covers the same bytes.
                if (full or not signed) and codecs.inline_digest(stored.codec, parts.stream, parts.buffers) != stored.digest:
                    raise ValueError("its bytes do not match its digest")  # noqa: TRY301 - reported like the errors of `unpack`
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
        """Return the reason why a stored value cannot be loaded; an empty string if it can be loaded.

        The value is loaded as a test only in two cases: if its last load failed; and, once per process, if the installed versions of its
        libraries differ from those with which it was written. Every other value is presumed to load.
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
        """Load a stored value, and return the reason why the load fails; an empty string if it succeeds."""
        try:
            self.get(stored, key=key)
        except ValueUnavailableError as error:
            return error.what.replace(f"the stored value of {key!r}", "its stored value")
        return ""

    # -- writing to the catalog ----------------------------------------------------------------------------------------

    def begin_run(self, run: RunRecord) -> Commit:
        """Record that ``run`` has started: add it to the next commit, and return this commit."""
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
        """Add the records of one step of a run to the next commit, and return this commit.

        Parameters
        ----------
        step
            The step, with its materializations.
        current
            The pointers that make materializations of the step current.
        code
            The code version of the step, with its parts. It is recorded if the catalog does not contain it yet. None to record no code version.
        outputs
            The captured outputs of the step.
        logs
            The lines that the step logged.
        """
        return self.catalog.add(Recorded(step, current, code, signing.sealed(outputs, self.signer), logs))

    def finish_run(self, run: RunRecord) -> Commit:
        """Record that ``run`` has ended: add it to the next commit, and return this commit."""
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
        """Return the records in the catalog that a plan needs.

        If no other process has changed the catalog since the last call with the same arguments, the snapshot comes from memory, without the
        lease and without a query.

        Parameters
        ----------
        keys
            Keys whose current materializations are needed.
        step_keys, code_versions
            Keys of steps, and digests of code versions. The materializations of these steps with one of these code versions are needed.
        remember
            True to keep the snapshot in memory for the next call.
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
        """Return True if the catalog rows in ``snapshot`` cannot be out of date. This needs no query.

        Return False if another process has changed the catalog since the snapshot was read, or this process has changed or deleted rows.
        """
        return self.catalog.unchanged() and snapshot.epoch == self.catalog.epoch

    def current(self, key: str) -> list[Current]:
        """Return the pointers to the current materializations of a key, one for each notebook and partition, newest first."""
        return self.catalog.ask(tables.read_current, key)

    def history(self, key: str, *, limit: int = 20) -> list[Materialization]:
        """Return the materializations of a key, newest first, at most ``limit``."""
        return self.catalog.ask(tables.read_history, key, limit)

    def keys(self) -> list[str]:
        """Return every key that has a current materialization in some notebook."""
        return self.catalog.ask(tables.read_keys)

    def codes(self, code_versions: Collection[str]) -> dict[str, CodeVersion]:
        """Return the recorded code versions with the digests ``code_versions``, by digest. A digest that is not recorded is omitted."""
        return self.catalog.ask(tables.read_codes, code_versions)

    def run(self, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]] | None:
        """Return the record of a run, and the records of its steps in the order in which they were recorded; None if there is no such run."""
        return self.catalog.ask(tables.read_run, run_id)

    def runs(self, *, limit: int = 20, batch: str = "") -> list[RunRecord]:
        """Return the records of at most ``limit`` runs, newest first. If ``batch`` is not empty, only runs of the batch execution with this id."""
        return self.catalog.ask(tables.read_runs, limit, batch)

    def flush(self) -> None:
        """Block until all pending records are committed."""
        self.catalog.flush()

    def close(self) -> None:
        """Commit pending records, detach the catalog and release its lease. A later call of any method attaches the catalog again."""
        self.catalog.close()
        self._shared.unrecorded.close()


def _kind_of(value: Any) -> str:
    """Return the name of a value's type for display; ``variables`` for a `Linked` value, which contains the variables of a cell."""
    return "variables" if type(value) is Linked else type_name(value)


def _summary_of(value: Any) -> str:
    """Return the summary of a value for display; an empty string for a `Linked` value."""
    return "" if type(value) is Linked else summary(value)
