"""The store: values by content, and the catalog of what is known about them."""

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
from stepwell.kernel_runtime.store.trouble import named, refused, trouble
from stepwell.kernel_runtime.store.values import codecs, round_trip
from stepwell.kernel_runtime.store.values.loading import CodeReader, Loading, other_libraries, silent
from stepwell.kernel_runtime.store.values.structure import summary, type_name

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.catalog.thread import Commit

INLINE = 64 * 1024
"""Bytes up to which a value is kept in its row."""


class _Shared:
    """The parts that all stores of one directory in one process share: the catalog thread, the last snapshot, the claims."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.rows = RowWriter()
        self.remembered = Remembered()
        self.unrecorded = Unrecorded(folder)
        self.catalog = Catalog(folder, self.rows.write, self._ended)
        self.marks = Marks(folder)
        self.claims = Claims(folder)
        self.same: dict[tuple[tuple[str, str], ...], bool] = {}
        """By the libraries that wrote a value, True if they are installed in the same versions."""
        self.tried: dict[str, str] = {}
        """By digest, why a value that other versions wrote does not load; empty if it does."""

    def _ended(self, records: list[Any], error: BaseException | None) -> None:
        if error is None:
            recorded = [record for record in records if isinstance(record, Recorded)]
            self.remembered.add(recorded)
            self.unrecorded.recorded(
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
    global _shared_lock  # noqa: PLW0603 - another thread of the parent may have held it
    _shared_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def open_store(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    follow: bool = True,
    code: CodeReader | None = None,
    tell: Notify = silent,
) -> ValueStore:
    """Open the store in a directory, the one with ``catalog.duckdb``.

    Parameters
    ----------
    path
        The store directory.
    create
        Make it if it is not there.
    follow
        True if the path may be a link to a directory: the user named this very path.
    code
        Reads the code of classes and functions of the notebook that a value names.
    tell
        Gets a notice if a value is stored or loaded in an unexpected way.

    Raises
    ------
    StoreError
        If there is no store and ``create`` is false.
    UntrustedStoreError
        If the directory has something in it through which a store could reach elsewhere: a link, a pipe, another user's file.
    StoreNotWritableError, StoreFormatError, StoreDamagedError
        If the directory cannot be written, a newer Stepwell wrote it, or the catalog cannot be read. Nothing is changed then.
    """
    directory = Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 - Path.resolve fails below a file
    folder = Folder(directory, follow=follow)
    try:
        folder.examine()
        there = folder.exists(CATALOG) or folder.exists(SEAL)
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except OSError as error:
        raise refused(directory, error) from error
    if not create and not there:
        raise StoreError(
            f"there is no store in {directory}",
            remedy="name the directory that has catalog.duckdb in it, or materialize something to make one",
        )
    with _shared_lock:
        place = Path(os.path.realpath(directory))
        shared = _shared.get(place)
        if shared is None:
            # The place has no links in it now; one that is put there later is not followed.
            shared = _Shared(Folder(place, follow=False))
            _shared[place] = shared
    if tell is not silent:
        shared.catalog.tell = tell
    shared.catalog.open(create=create)
    return ValueStore(directory, shared, code or CodeReader(), tell)


class ValueStore:
    """Values and catalog of one directory; made by `open_store`. Every method may be called from any thread.

    Methods that read the catalog block until the answer is there. Other questions are functions that `catalog` runs (`catalog.tables`).
    `housekeeping`, `retention`, `packs` and `trust` are functions that take a store.
    """

    def __init__(self, directory: Path, shared: _Shared, code: CodeReader, tell: Notify) -> None:
        self.directory = directory
        """The store directory: the one with ``catalog.duckdb``."""
        self.folder = shared.folder
        """The same directory, for work with its files."""
        self.catalog = shared.catalog
        """Runs functions of a connection and the catalog's name on the thread that has the catalog."""
        self.claims = shared.claims
        """The claims of processes that compute long steps."""
        self.signer = Signer()
        self.objects = value_files.Objects(self.folder, self.signer, shared.unrecorded)
        self._shared = shared
        self._code = code
        self._tell = tell
        self._loading = Loading(code, tell, self.folder)
        """The last one: values that are loaded in a row need the same."""

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
        """Write a value's stored form and return where it is; nothing refers to it until a row does.

        Parameters
        ----------
        about
            Returns the materialization without its value, which the header of a value file keeps. Called for files only.
        portable
            True if pickle alone must be able to bring the value to another process: the step may run in one.

        Raises
        ------
        UnstorableValueError
            If no codec can bring the value back; names the key, the type and the remedy.
        """
        encoded = codecs.encode(value, key=key, code=self._code, portable=portable)
        # A value with links is loaded where these mean something; if that fails, its step runs.
        if encoded.kinds and type(value) is not Linked:
            round_trip.check(value, encoded, key=key, code=self._code, witnesses=self.objects.witnesses)
        for each in encoded.notices:
            self._tell(each)
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
            # Lists and packs show the summary, so the secret must not be in it.
            shape = f"{len(value):,} {'characters' if type(value) is str else 'bytes'}"
        size = encoded.size
        if size <= INLINE and codecs.packs(encoded):
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
        told = {"type_name": kind, "summary": shape, "about": about_row(about()) if about is not None else {}}
        found, name = self.objects.write(encoded, key=key, memo_key=memo_key, about=told)
        return StoredValue(encoded.codec, found, size, None, name, None, kind, shape, encoded.classes)

    @named
    def get(self, stored: StoredValue, *, key: str, verify: Verify = "signed", link: Link | None = None) -> Any:
        """Load a value: an own copy for the caller unless its type is immutable.

        Parameters
        ----------
        verify
            ``full`` checks every byte; ``signed`` what would be executed, and every byte of a file once since the machine was started.
        link
            Returns the object that a link in the value means.

        Raises
        ------
        UntrustedValueError
            If it would execute code and this user's key did not sign it.
        ValueDamagedError
            If it is not what was stored.
        ValueUnavailableError
            If it is missing, or names a class that is not there or not the same.
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
                # The signature covers what the digest covers.
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
        if loading.written != stored.classes or loading.check != check or link is not None:
            loading = Loading(self._code, self._tell, self.folder, stored.classes, check, link)
            if link is None:
                self._loading = loading
        try:
            value = codecs.decode(stored.codec, parts.stream, parts.buffers, key=key, loading=loading)
        except MemoryError as error:
            raise trouble(error, f"the stored value of {key!r} cannot be loaded") or error from error
        if stored.object_name is not None and parts.unchecked is not None:
            self.objects.checked(stored.object_name, parts.unchecked)
        return value

    def obstacle(self, stored: StoredValue, *, key: str) -> str:
        """Return why a value is known not to load, empty if nothing is known.

        It is tried where it failed to load before, and once in a process where other versions of its libraries wrote it: as a rule another
        version reads it all the same.
        """
        if stored.digest in self._shared.marks:
            return self._loads(stored, key)
        written = stored.classes
        same = self._shared.same.get(written)
        if same is None:
            same = self._shared.same[written] = not other_libraries(written, self._code.owner)
        if same:
            return ""
        found = self._shared.tried.get(stored.digest)
        if found is None:
            found = self._shared.tried[stored.digest] = self._loads(stored, key)
        return found

    def _loads(self, stored: StoredValue, key: str) -> str:
        """Return why a value does not load, empty if it does."""
        try:
            self.get(stored, key=key)
        except ValueUnavailableError as error:
            return error.what.replace(f"the stored value of {key!r}", "its stored value")
        return ""

    # -- the catalog, written ------------------------------------------------------------------------------------------

    def begin_run(self, run: RunRecord) -> Commit:
        """Record that a run started."""
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
        """Record one step with its materializations, the parts of its code, its output, and what is current from now on."""
        return self.catalog.add(Recorded(step, current, code, signing.sealed(outputs, self.signer), logs))

    def finish_run(self, run: RunRecord) -> Commit:
        """Record how a run ended."""
        return self.catalog.add(run)

    # -- the catalog, read -----------------------------------------------------------------------------------------------

    @named
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
        self._shared.rows.expected = asked[2]
        found = None
        if self.catalog.pending() is None and self.catalog.unchanged():
            found = remembered.snapshot(asked, self.catalog.epoch)
        if found is None:

            def read(connection: Connection, name: str) -> Snapshot:
                fresh = tables.read_snapshot(connection, name, *asked)
                fresh.epoch = self.catalog.epoch
                return remembered.keep(asked, fresh.epoch, fresh) if remember else fresh

            found = self.catalog.ask(read)
        found.missing_files, found.foreign = lacking(found, self.objects, self.signer)
        return found

    def is_newest(self, snapshot: Snapshot) -> bool:
        """Return True if no other process wrote since a snapshot was read; takes no query."""
        return self.catalog.unchanged() and snapshot.epoch == self.catalog.epoch

    def current(self, key: str) -> list[Current]:
        """Return what is current for a key in each notebook that defined it, newest first."""
        return self.catalog.ask(tables.read_current, key)

    def history(self, key: str, *, limit: int = 20) -> list[Materialization]:
        """Return the newest materializations of a key, newest first."""
        return self.catalog.ask(tables.read_history, key, limit)

    def keys(self) -> list[str]:
        """Return every key that has something current."""
        return self.catalog.ask(tables.read_keys)

    def codes(self, code_versions: Collection[str]) -> dict[str, CodeVersion]:
        """Return the parts of recorded code versions, by digest: one query."""
        return self.catalog.ask(tables.read_codes, code_versions)

    def run(self, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]] | None:
        """Return a run and its steps in the order of their records, or None."""
        return self.catalog.ask(tables.read_run, run_id)

    def runs(self, *, limit: int = 20, batch: str = "") -> list[RunRecord]:
        """Return the newest runs, newest first; only those of a batch execution if one is named."""
        return self.catalog.ask(tables.read_runs, limit, batch)

    def flush(self) -> None:
        """Block until everything recorded so far is committed."""
        self.catalog.flush()

    def close(self) -> None:
        """Commit what is pending and let the catalog go; a later call opens it again."""
        self.catalog.close()
        self._shared.unrecorded.close()


def _kind_of(value: Any) -> str:
    """Return the type that messages name."""
    return "variables" if type(value) is Linked else type_name(value)


def _summary_of(value: Any) -> str:
    return "" if type(value) is Linked else summary(value)
