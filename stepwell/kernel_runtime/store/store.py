"""The store: values by content, and the catalog of what is known about them."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.errors import StoreError, UntrustedValueError, ValueDamagedError, ValueUnavailableError
from stepwell.kernel_runtime.records.events import Notify
from stepwell.kernel_runtime.records.maintenance import Collected, Forgotten, KeySize, Offer, Rule, Sizes
from stepwell.kernel_runtime.records.materializations import (
    CodeVersion,
    Current,
    Link,
    Linked,
    Materialization,
    StoredValue,
    Verify,
)
from stepwell.kernel_runtime.records.runs import CapturedOutput, LogRecord, RunRecord, Snapshot, StepRecord
from stepwell.kernel_runtime.store import housekeeping, packs, signing, trust
from stepwell.kernel_runtime.store.catalog import tables
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.lease import SEAL
from stepwell.kernel_runtime.store.catalog.schema import materialization_row
from stepwell.kernel_runtime.store.catalog.tables import Recorded, Remembered, RowWriter
from stepwell.kernel_runtime.store.catalog.thread import Catalog
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects import value_files
from stepwell.kernel_runtime.store.objects.checked import Marks, set_aside
from stepwell.kernel_runtime.store.objects.header import about as about_row
from stepwell.kernel_runtime.store.objects.value_files import lacking
from stepwell.kernel_runtime.store.processes import Claims, Unrecorded
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.store.sql import catalog_views
from stepwell.kernel_runtime.store.trouble import named, refused, trouble
from stepwell.kernel_runtime.store.values import codecs, round_trip
from stepwell.kernel_runtime.store.values.loading import CodeReader, Loading, other_libraries, silent
from stepwell.kernel_runtime.store.values.structure import summary, type_name

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.catalog.thread import Commit

INLINE = 64 * 1024
"""Bytes up to which a value is kept in its row."""


class _Shared:
    """What all stores of one directory in one process share: the catalog thread, what it remembers, and the claims."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.rows = RowWriter()
        self.remembered = Remembered()
        self.unrecorded = Unrecorded(folder)
        self.catalog = Catalog(folder, self.rows.write, self._ended)
        self.marks = Marks(folder)
        self.claims = Claims(folder)
        self.same: dict[tuple[tuple[str, str], ...], bool] = {}
        """Whether the libraries that wrote values are here in the same versions."""
        self.tried: dict[str, str] = {}
        """By digest, why a value of other versions does not load; empty where it does."""

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
        Whether the path may be a link to a directory: where the user named this very path.
    code
        Reads the code of classes and functions of the notebook that a value names.
    tell
        Gets a notice where a value is stored or loaded in another way than one would think.

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
    """Values and catalog of one directory; made by `open_store`. Every method may be called from any thread."""

    def __init__(self, directory: Path, shared: _Shared, code: CodeReader, tell: Notify) -> None:
        self._directory = directory
        self._shared = shared
        self._catalog = shared.catalog
        self._code = code
        self._tell = tell
        self._signer = Signer()
        self._folder = shared.folder
        self._objects = value_files.Objects(self._folder, self._signer, shared.unrecorded)
        self._loading = Loading(code, tell, self._folder)
        """The last one: values that are loaded in a row need the same."""

    @property
    def claims(self) -> Claims:
        """Who computes what just now."""
        return self._shared.claims

    @property
    def folder(self) -> Folder:
        """The store directory, for work with its files."""
        return self._folder

    @property
    def directory(self) -> Path:
        """The store directory: the one with ``catalog.duckdb``."""
        return self._directory

    def __repr__(self) -> str:
        return f"ValueStore({str(self._directory)!r})"

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
            Returns what will be recorded of it, except for the value: a file says so in its header. Called for files only.
        portable
            Whether pickle alone must be able to bring the value to another process: the step may run in one.

        Raises
        ------
        UnstorableValueError
            If no codec can bring the value back; names the key, the type and the remedy.
        """
        encoded = codecs.encode(value, key=key, code=self._code, portable=portable)
        # A value with links is loaded where these mean something; if that fails, its step runs.
        if encoded.kinds and type(value) is not Linked:
            round_trip.check(value, encoded, key=key, code=self._code, witnesses=self._objects.witnesses)
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
            # The value is the step's own affair; what is listed and packed beside it is ours.
            shape = f"{len(value):,} {'characters' if type(value) is str else 'bytes'}"
        size = encoded.size
        if size <= INLINE and codecs.packs(encoded):
            inline = codecs.pack(encoded)
            signature = self._signer.sign((encoded.codec.encode(), inline)) if encoded.codec == codecs.PICKLE else None
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
        found, name = self._objects.write(encoded, key=key, memo_key=memo_key, about=told)
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
                set_aside(self._folder, stored.object_name)
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
            if signed and not self._signer.verify(stored.signature, (stored.codec.encode(), stored.inline)):
                raise value_files.untrusted(key, f"in the catalog of {self._directory}", stored.signature, self._signer)
            try:
                parts = codecs.unpack(stored.inline)
                # The signature covers what the digest covers.
                if (full or not signed) and codecs.inline_digest(
                    stored.codec, parts.stream, parts.buffers
                ) != stored.digest:
                    raise ValueError("its contents changed")  # noqa: TRY301 - told like sizes that do not fit
            except (ValueError, struct.error) as error:
                raise ValueDamagedError(
                    f"the stored value of {key!r} is damaged: {error}", remedy=f"materialize {key!r} again"
                ) from error
        elif stored.object_name is not None:
            parts = self._objects.read(stored.object_name, stored.digest, stored.codec, key=key, full=full)
        else:
            raise ValueUnavailableError(f"the value of {key!r} was not stored", remedy=f"materialize {key!r} again")
        check = stored.inline is not None or parts.unchecked is not None
        loading = self._loading
        if loading.written != stored.classes or loading.check != check or link is not None:
            loading = Loading(self._code, self._tell, self._folder, stored.classes, check, link)
            if link is None:
                self._loading = loading
        try:
            value = codecs.decode(stored.codec, parts.stream, parts.buffers, key=key, loading=loading)
        except MemoryError as error:
            raise trouble(error, f"the stored value of {key!r} cannot be loaded") or error from error
        if stored.object_name is not None and parts.unchecked is not None:
            self._objects.checked(stored.object_name, parts.unchecked)
        return value

    def sign_record(self, item: Materialization) -> bytes:
        """Return the signature of a whole record, its own column excepted."""
        return self._signer.sign(_record_parts(item))

    def vouches(self, item: Materialization) -> bool:
        """Return True if a trusted key signed the whole record."""
        return self._signer.verify(item.record_signature, _record_parts(item))

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
        return self._catalog.add(Recorded(step, current, code, signing.sealed(outputs, self._signer), logs))

    def finish_run(self, run: RunRecord) -> Commit:
        """Record how a run ended."""
        return self._catalog.add(run)

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
        if self._catalog.pending() is None and self._catalog.unchanged():
            found = remembered.snapshot(asked, self._catalog.epoch)
        if found is None:

            def read(connection: Connection, name: str) -> Snapshot:
                fresh = tables.read_snapshot(connection, name, *asked)
                fresh.epoch = self._catalog.epoch
                return remembered.keep(asked, fresh.epoch, fresh) if remember else fresh

            found = self._catalog.ask(read)
        found.missing_files, found.foreign = lacking(found, self._objects, self._signer)
        return found

    def is_newest(self, snapshot: Snapshot) -> bool:
        """Tell, without a query, whether no other process wrote since a snapshot was read."""
        return self._catalog.unchanged() and snapshot.epoch == self._catalog.epoch

    def current(self, key: str) -> list[Current]:
        """Return what is current for a key in each notebook that defined it, newest first."""
        return self._catalog.ask(lambda connection, name: tables.read_current(connection, name, key))

    def all_current(self) -> list[Current]:
        """Return what is current for every key, by key, newest first: one query; inline values are not read."""
        return self._catalog.ask(tables.read_all_current)

    def run(self, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]] | None:
        """Return a run and its steps in the order of their records, or None."""
        return self._catalog.ask(lambda connection, name: tables.read_run(connection, name, run_id))

    def runs(self, *, limit: int = 20, batch: str = "") -> list[RunRecord]:
        """Return the newest runs, newest first; only those of a batch execution if one is named."""
        return self._catalog.ask(lambda connection, name: tables.read_runs(connection, name, limit, batch))

    def attempts(self, step_key: str, *, limit: int = 20) -> list[StepRecord]:
        """Return the newest records of a step that was executed, reused, failed or cancelled, newest first; of reuses in a row the first."""
        return self._catalog.ask(lambda connection, name: tables.read_attempts(connection, name, step_key, limit))

    def outputs(self, run_id: str, step_key: str) -> tuple[CapturedOutput, ...]:
        """Return what an executed step printed and displayed."""
        found = self._catalog.ask(lambda connection, name: tables.read_outputs(connection, name, run_id, step_key))
        return signing.shown(found, self._signer)

    def logs(self, run_id: str, step_key: str = "") -> list[LogRecord]:
        """Return what a run's steps logged, oldest first."""
        return self._catalog.ask(lambda connection, name: tables.read_logs(connection, name, run_id, step_key))

    def code(self, code_version: str) -> CodeVersion | None:
        """Return the parts of a recorded code version, or None."""
        return self.codes([code_version]).get(code_version)

    def codes(self, code_versions: Collection[str]) -> dict[str, CodeVersion]:
        """Return the parts of recorded code versions, by digest: one query."""
        return self._catalog.ask(lambda connection, name: tables.read_codes(connection, name, code_versions))

    def keys(self) -> list[str]:
        """Return every key that has something current."""
        return self._catalog.ask(tables.read_keys)

    def history(self, key: str, *, limit: int = 20) -> list[Materialization]:
        """Return the newest materializations of a key, newest first."""
        return self._catalog.ask(lambda connection, name: tables.read_history(connection, name, key, limit))

    def writers_of(self, path: str) -> list[Materialization]:
        """Return the records whose effects name a file, newest first."""
        return self._catalog.ask(lambda connection, name: tables.read_writers(connection, name, path))

    @named
    def sizes(self) -> dict[str, int]:
        """Return ``materializations``, ``runs``, ``objects``, ``object_bytes`` and ``catalog_bytes``."""
        counts = self._catalog.ask(tables.read_counts)
        files, total = self._objects.usage()
        return {
            **counts,
            "objects": files,
            "object_bytes": total,
            "catalog_bytes": self._folder.stat(CATALOG).st_size,
        }

    def catalog_sources(self, sources: Collection[str]) -> dict[str, Any]:
        """Return what views of the catalog are made of (`catalog_views`) as Arrow tables, all of one moment."""
        return self._catalog.ask(lambda connection, name: catalog_views.read_sources(connection, name, sources))

    def key_sizes(self) -> list[KeySize]:
        """Return what each key takes, the largest first."""
        return self._catalog.ask(housekeeping.read_key_sizes)

    # -- what is kept ------------------------------------------------------------------------------------------------

    def rules(self) -> dict[str, Rule]:
        """Return the retention rules that hold, by key; the store's own under the empty key."""
        return self._catalog.ask(housekeeping.read_rules)

    def keep(self, key: str, rule: Rule) -> None:
        """Set what is kept of a key, or of the whole store where the key is empty; an empty rule takes a rule back."""
        self._catalog.change(lambda connection, name: housekeeping.write_rule(connection, name, key, rule))

    @named
    def collect(
        self, *, dry_run: bool = False, grace: float = housekeeping.GRACE, compact: bool | None = None
    ) -> Collected:
        """Delete what retention drops, files without a row, and what dead processes left; see `collecting`.

        Parameters
        ----------
        dry_run
            Only tell what would be freed.
        grace
            Seconds that a file without a row is left alone.
        compact
            Whether the catalog is rewritten; None where it is large and mostly free room.
        """
        return housekeeping.collect(self._catalog, self._folder, dry_run=dry_run, grace=grace, compact=compact)

    @named
    def forget(self, key: str, *, dry_run: bool = False) -> Forgotten:
        """Remove every version of a key with the steps inside it, and the files that nothing else refers to.

        Raises
        ------
        UnknownKeyError
            If nothing is stored for it.
        """
        return housekeeping.forget(self._catalog, self._folder, key, dry_run=dry_run)

    def carry_over(
        self,
        made: Sequence[Materialization],
        current: Sequence[Current],
        *,
        steps: Mapping[str, str],
        gone: Sequence[Current] = (),
        code: CodeVersion | None = None,
    ) -> None:
        """Record materializations that are copies of others under another key; see `carrying`."""
        self._catalog.change(
            lambda connection, name: housekeeping.carry(
                connection, name, made, current, steps=steps, gone=gone, code=code
            )
        )

    @named
    def is_there(self, value: StoredValue) -> bool:
        """Tell whether a value's stored form is there; whether it can be loaded only loading it tells."""
        return value.inline is not None or (
            value.object_name is not None and not self._objects.missing(value.object_name)
        )

    @named
    def housekeep(self) -> bool:
        """Do what is due once an hour; tell whether it was."""
        return housekeeping.housekeep(self._catalog, self._folder, self._objects)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a new folder for temporary files, which is removed at the end."""
        with self._folder.scratch() as path:
            yield path

    def is_housekeeping_due(self) -> bool:
        """Tell whether `housekeep` would do something; false where the store is gone."""
        return not self._catalog.read_only and self._folder.is_in_place() and housekeeping.is_due(self._folder)

    def housekept_sizes(self) -> Sizes | None:
        """Return what the last housekeeping found; None before the first."""
        return housekeeping.read_sizes(self._folder)

    # -- sharing ---------------------------------------------------------------------------------------------------------

    @named
    def pack(self, keys: Sequence[str], path: Path) -> Offer:
        """Write what is current for some keys into a pack; errors as of `packs.write_pack`."""
        return packs.write_pack(keys, path, self._catalog.ask, self._objects, self._signer)

    def inspect_pack(self, path: Path) -> Offer:
        """Check everything in a pack and return what it holds; errors as of `trust.inspect_pack`."""
        return trust.inspect_pack(path, self._signer)

    @named
    def import_pack(self, path: Path) -> Offer:
        """Import a pack, and sign what is in it with this user's key; errors as of `trust.import_pack`."""
        return trust.import_pack(path, self._objects, self._signer, self._catalog.change)

    @named
    def foreign(self, keys: Sequence[str] | None) -> trust.ForeignValues:
        """Return what another key signed of some keys, or of all; errors as of `trust.foreign_values`."""
        return trust.foreign_values(keys, self._catalog.ask, self._objects, self._signer)

    @named
    def adopt(self, found: trust.ForeignValues) -> list[str]:
        """Sign values of the store with this user's key; return the keys of those that are damaged and were left alone."""
        return trust.adopt(found, self._objects, self._signer, self._catalog.change)

    def flush(self) -> None:
        """Block until everything recorded so far is committed."""
        self._catalog.flush()

    def close(self) -> None:
        """Commit what is pending and let the catalog go; a later call opens it again."""
        self._catalog.close()
        self._shared.unrecorded.close()


def _record_parts(item: Materialization) -> tuple[bytes, ...]:
    """Return what the signature of a record covers: every column as it is stored, the run and the signature itself excepted."""
    row = materialization_row(replace(item, record_signature=None))
    return (b"record", repr(row).encode("utf-8", "backslashreplace"))


def _kind_of(value: Any) -> str:
    """Return the type that messages name."""
    return "variables" if type(value) is Linked else type_name(value)


def _summary_of(value: Any) -> str:
    return "" if type(value) is Linked else summary(value)
