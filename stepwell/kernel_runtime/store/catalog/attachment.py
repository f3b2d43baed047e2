"""The catalog file, which is attached to the in-memory DuckDB instance while the lease is held.

One instance lives as long as the process (`instance`). The catalog thread of each store attaches the store's catalog to the instance under
a unique name, and detaches it before it releases the lease. DETACH writes a checkpoint, so that a store that is not in use has no log.

Nothing else in the process may open ``catalog.duckdb``, because closing any descriptor of the file would release DuckDB's lock.

A store can come from another person's archive or repository. A view in place of a table could read any file when rows are queried; a
trigger could do so when rows are added. Stepwell creates neither, so a catalog that contains a view or a trigger is refused.
`Folder.examine` checks the directory itself.

A catalog with fewer commits than were acknowledged is refused, too (`lease`). A log next to the catalog means that the last process that
attached the catalog died. The catalog is then attached read-only for the checks first, because attaching it for writing would replay the
log, and could destroy the readable part of a damaged log. A catalog of an older format is copied to ``catalog.format-N.duckdb`` and then
migrated in one transaction. If the process is killed before the commit, the old catalog is intact.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import weakref
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from stepwell.kernel_runtime.errors import (
    StoreDamagedError,
    StoreError,
    StoreFormatError,
    UntrustedStoreError,
)
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.runs import Notice, notice
from stepwell.kernel_runtime.store.catalog.instance import Connection, cursor, exclusive_access, give_up_if_dead, leak
from stepwell.kernel_runtime.store.catalog.lease import SEAL, Lease, read_seal, write_seal
from stepwell.kernel_runtime.store.catalog.schema import FORMAT, create_statements, keep_copy, migrate
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.trouble import keep_reserve, one_line, trouble, unusable_directory
from stepwell.kernel_runtime.text import moment

_EXTRA = """
    SELECT 'view', view_name FROM duckdb_views() WHERE database_name = $1 AND NOT internal
    UNION ALL SELECT 'trigger', trigger_name FROM duckdb_triggers() WHERE database_name = $1
"""


def vet_catalog(connection: Any, name: str, directory: Path) -> None:
    """Refuse an attached catalog that contains a view or a trigger.

    Raises
    ------
    UntrustedStoreError
        If the catalog contains a view or a trigger.
    """
    with exclusive_access():
        extras = connection.execute(_EXTRA, [name]).fetchall()
    if extras:
        kind, extra_name = extras[0]
        raise UntrustedStoreError(
            f"the catalog of the store {directory} contains a {kind} ({extra_name!r}), which Stepwell never creates",
            where="it could read and write files when the store is used",
            remedy="find out where the store comes from, or choose another store directory",
        )


Fingerprint: TypeAlias = tuple[Any, ...]

CATALOG = "catalog.duckdb"
LOG = "catalog.duckdb.wal"
_TRIES = 100
_STILL = 0.05
"""Seconds for which a store must stay unchanged to be copied without its lock."""

_aliases = count(1)


class Attachment:
    """The catalog of one store, attached or detached. Only the catalog thread may attach, detach or change the catalog.

    Parameters
    ----------
    folder
        The store directory.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.directory = folder.path
        self.lease = Lease(folder)
        self.connection: Connection = None
        self.name = f"store_{next(_aliases)}"
        self.is_open = False
        self.is_stuck = False
        self.store_id = ""
        self.last_fingerprint: Fingerprint | None = None
        """The fingerprint of the catalog when it was last detached."""
        self.epoch = 0
        """A number that is incremented when another process has changed the catalog, or rows were changed in place."""
        self._is_checked = False
        """True if the catalog was checked for views and triggers after the last change by another process."""
        self.write_error: StoreError | None = None
        """The error that explains why the store was not writable at the last attach; None if it was writable."""
        self.notices: list[Notice] = []
        """Notices that the next thread with a question passes on."""
        self._source = folder
        """The folder from which catalog and seal are read: the store, or a private copy of both."""
        self._copy = ""
        self._copied_state: Fingerprint = ()
        self.commits = 0
        """The number of commits in the attached catalog."""
        self._path = folder.path / CATALOG

    def attach(self, *, create: bool = True) -> None:
        """Take the lease and attach the catalog; create the catalog if there is none and ``create`` is true.

        Raises
        ------
        StoreNotWritableError
            If the directory or its lock files cannot be created.
        StoreFormatError
            If a newer Stepwell or a newer DuckDB wrote the catalog.
        StoreDamagedError
            If the catalog is not a database, belongs to another program, or lacks acknowledged commits.
        """
        if self.is_open:
            return
        folder = self.folder
        try:
            try:
                folder.examine()
                is_new = not folder.exists(CATALOG)
            except FileNotFoundError:
                is_new = True
            if create and is_new:
                folder.examine(create=True)
            existed = folder.exists("catalog.lock")
            self._check_writable()
            if self.write_error is None:
                self.lease.acquire()
            elif is_new:
                raise self.write_error
            else:
                existed = True
                self._attach_for_reading()
                return
        except OSError as error:
            raise unusable_directory(self.directory, error) from error
        try:
            if self.last_fingerprint is None or self.last_fingerprint != (self.lease.token(), *self.stat()):
                self.epoch += 1
                self._is_checked = False
            if not folder.exists(CATALOG):
                self._refuse_lost_catalog()
                if create:
                    self._create()
            self._attach_existing()
            keep_reserve(folder)
        except BaseException as error:
            if not existed and isinstance(error, StoreError):
                self.lease.remove_files()
            self.lease.release()
            if isinstance(error, OSError | MemoryError):
                raise unusable_directory(self.directory, error) from error
            raise

    def is_usable(self) -> bool:
        """Return False if the catalog is attached to an instance that no longer executes statements."""
        if not self.is_open:
            return True
        try:
            self.connection.execute("SELECT 1")
        except Exception:
            return False
        return True

    def _check_writable(self) -> None:
        """Set `read_only` if this user cannot write to the store. The check itself writes nothing."""
        obstacle = self.folder.obstacle((CATALOG, LOG, "catalog.lock", "want.lock", SEAL, "objects", "tmp", "writers"))
        self.write_error = unusable_directory(self.directory, obstacle, "written") if obstacle is not None else None

    def _attach_for_reading(self) -> None:
        """Attach the catalog read-only under the lease. Attach a private copy if the lease cannot be taken or the format is older."""
        try:
            self.lease.acquire(read_only=True)
        except OSError:
            self._attach_copy(without_lease=True)
            return
        try:
            if self.last_fingerprint is None or self.last_fingerprint != (self.lease.token(), *self.stat()):
                self.epoch += 1
            self._attach_file("(READ_ONLY)")
            try:
                vet_catalog(self.connection, self.name, self.directory)
                number = self._check()
            except BaseException:
                self._detach_quietly()
                raise
            if number < FORMAT:
                self._detach_quietly()
                self._attach_copy(without_lease=False)
            self.is_open = True
        except BaseException:
            self.lease.release()
            raise

    def _attach_copy(self, *, without_lease: bool) -> None:
        """Attach a private copy of the catalog, its log and its seal, which was made while they did not change.

        Parameters
        ----------
        without_lease
            True if the lease is not held. The copy can then become out of date, so a notice states when it was made.
        """
        state = self.stat()
        if not self._copy or self._copied_state != state:
            self._copy, self._copied_state = _copy_files(self.folder), state
            weakref.finalize(self, shutil.rmtree, self._copy, ignore_errors=True)
            self.epoch += 1
            if without_lease:
                copied = moment(time.time(), exact=True)
                self.notices.append(notice("copy read", str(self.directory), moment=copied))
        self._source = Folder(Path(self._copy))
        try:
            self._attach_file()
            try:
                vet_catalog(self.connection, self.name, self.directory)
                number = self._check()
                if number < FORMAT:
                    migrate(self.connection, self.name, number)
            except BaseException:
                self._detach_quietly()
                raise
        finally:
            self._source = self.folder
        self.is_open = True

    def detach(self) -> None:
        """Write the checkpoint, detach the file, then release the lease.

        If the checkpoint fails, its error is raised after the release; the committed rows are then in the log next to the catalog. The
        lease is kept only if DuckDB keeps the file open (`is_stuck`): no other process may open the file until this process ends.
        """
        if not self.is_open:
            return
        failure = self._detach()
        self.last_fingerprint = None if failure else (self.lease.token(), *self.stat())
        self.lease.release()
        if failure:
            raise failure

    def discard(self) -> None:
        """Detach the catalog after a failure and abandon an unfinished transaction."""
        self._renew()
        self.detach()

    def replace(self, making: str) -> None:
        """Replace the catalog with another file and attach the new file, under the lease; an error releases the lease.

        If the checkpoint fails or leaves a log, the old catalog is kept, because the log belongs to it.
        """
        failure = self._detach()
        try:
            if failure is None and not self._has_log():
                self.folder.rename(making, CATALOG)
            self._attach_existing()
        except BaseException:
            self.last_fingerprint = None
            self.lease.release()
            raise
        if failure:
            raise failure

    def _detach(self) -> Exception | None:
        """Write the checkpoint and detach the file; return the error of the checkpoint, or None.

        Raises
        ------
        StoreError
            If DuckDB keeps the file open.
        """
        failure: Exception | None = None
        if not self.folder.is_in_place():
            # DuckDB removes the log by its path, where another store may be now. So the log is kept, and the next process replays it.
            self.connection.execute("SET checkpoint_on_detach = 'DISABLED'")
        for _ in range(2):
            try:
                with exclusive_access():
                    self.connection.execute(f"DETACH {self.name}")
            except Exception as error:
                failure = error
                try:
                    self._renew()
                    listed = self._is_attached()
                except Exception:
                    listed = True
                if listed:
                    continue
            break
        else:
            self.is_stuck = True
            raise StoreError(f"the catalog {self._path} cannot be closed", remedy="restart this process") from failure
        self.is_open = False
        self.connection.close()
        self.connection = None
        if failure is None:
            with contextlib.suppress(OSError):
                # An empty log was created for a transaction that wrote nothing.
                if not self._has_log():
                    self.folder.unlink(LOG)
        return failure

    def prepare_log(self) -> None:
        """Create the log before a transaction. If DuckDB created it, it would follow a link and would not get the mode of a shared store."""
        with contextlib.suppress(FileExistsError):
            if not self.folder.exists(LOG):
                self.folder.write(LOG, b"")

    def _has_log(self) -> bool:
        """Return True if there is a log that is not empty, because a process died or could not write the checkpoint."""
        try:
            return self.folder.stat(LOG).st_size > 0
        except FileNotFoundError:
            return False

    def _renew(self) -> None:
        """Replace the connection, and the instance if it is dead."""
        if self.connection is not None:
            self.connection.close()
        give_up_if_dead()
        self.connection = cursor()

    def _is_attached(self) -> bool:
        """Return True if DuckDB still has the file attached. A DETACH whose checkpoint fails raises an error, but may detach the file."""
        with exclusive_access():
            names = self.connection.execute("SELECT database_name FROM duckdb_databases()").fetchall()
        return (self.name,) in names

    def unchanged(self) -> bool:
        """Return True if no other process has written the catalog since this process last attached it. Any thread may call this.

        Rows that were read in an older `epoch` are out of date even if this returns True.
        """
        if self.is_open:
            return True
        seen = self.last_fingerprint
        return seen is not None and seen == (self.lease.token(), *self.stat())

    def stat(self) -> Fingerprint:
        """Return the size, modification time and inode of the catalog and of its log, without opening the files."""
        return (*self._stat(CATALOG), *self._stat(LOG))

    def _stat(self, name: str) -> tuple[int, int, int]:
        try:
            status = self.folder.glance(name)
        except OSError:
            return (-1, -1, -1)
        return (status.st_size, status.st_mtime_ns, status.st_ino)

    def abandon(self) -> None:
        """Forget the attachment in a forked child."""
        if self.connection is not None:
            leak(self.connection)
            self.connection = None
        self.name = f"store_{next(_aliases)}"
        self.is_open = False
        self.last_fingerprint = None
        self.lease.abandon()

    def count(self) -> None:
        """Increment the number of commits in the catalog, inside the transaction that is about to be committed."""
        self.connection.execute("UPDATE @meta SET commits = ?".replace("@", f"{self.name}."), [self.commits + 1])

    def acknowledge(self) -> None:
        """Write the seal after a commit, before the commit is reported."""
        self.commits += 1
        write_seal(self.folder, self.commits, self.store_id)

    def damage(self, error: BaseException, *signs: str) -> StoreDamagedError | None:
        """Return a `StoreDamagedError` if an error of DuckDB means damage, else None. DuckDB detects damage only when it reads a block.

        Parameters
        ----------
        error
            The error of DuckDB.
        signs
            Further strings that mean damage if the message contains them.
        """
        text = str(error)
        if trouble(error, "") is None and any(
            sign in text
            for sign in ("Corrupt", "Could not read enough bytes", "checksum", "database has been invalid", *signs)
        ):
            return self._damaged("cannot be read", one_line(error))
        return None

    def _attach_existing(self) -> None:
        import duckdb

        if self.connection is None:
            self.connection = cursor()
        if self.folder.exists(LOG):
            self._attach_file("(READ_ONLY)")
            try:
                self._check_tables_only()
                self._check()
            finally:
                self._detach_quietly()
        self._attach_file()
        try:
            self._check_tables_only()
            number = self._check()
            if number < FORMAT:
                # A detached catalog is one file without a log, so it can be copied.
                self._detach_quietly()
                keep_copy(self.folder, number)
                self._attach_file()
                self.lease.mark()
                self.prepare_log()
                try:
                    migrate(self.connection, self.name, number)
                except duckdb.Error as error:
                    self._renew()
                    what = f"the store {self.directory} could not be migrated from format {number} to {FORMAT}"
                    raise trouble(error, what) or StoreError(
                        what, where=one_line(error), remedy="try again: nothing was changed"
                    ) from error
        except BaseException:
            self._detach_quietly()
            raise
        self.is_open = True

    def _check_tables_only(self) -> None:
        if not self._is_checked:
            vet_catalog(self.connection, self.name, self.directory)
            self._is_checked = True

    def _attach_file(self, options: str = "") -> None:
        import duckdb

        if self.connection is None:
            self.connection = cursor()
        expected = self._source.stat(CATALOG)
        try:
            with self._source.database(CATALOG) as path:
                statement = f"ATTACH '{quoted(path)}' AS {self.name} {options}"
                try:
                    self.connection.execute(statement)
                except duckdb.FatalException:
                    # The instance may be dead because of another store.
                    self._renew()
                    self.connection.execute(statement)
        except duckdb.Error as error:
            raise self._explained(error) from error
        if not self.folder.is_open(expected):
            self._detach_quietly()
            raise UntrustedStoreError(
                f"the catalog of the store {self.directory} was replaced while it was opened",
                remedy="find out which program changes the store, then try again",
            )

    def _detach_quietly(self) -> None:
        """Detach the file, whether or not it is attached, and ignore errors; called after an error or a check."""
        import duckdb

        with contextlib.suppress(duckdb.Error), exclusive_access():
            self.connection.execute(f"DETACH DATABASE IF EXISTS {self.name}")

    def _refuse_lost_catalog(self) -> None:
        """Refuse to create a catalog in a store whose catalog was lost."""
        seal = read_seal(self.folder)
        if self._has_log() or (seal is not None and seal.commits):
            raise self._damaged("is gone", "its seal or its log still exists")

    def _create(self) -> None:
        """Create the catalog under a temporary name and rename it, so that a killed process leaves no incomplete catalog."""
        making = f"tmp/{new_id()}.duckdb"
        if self.connection is None:
            self.connection = cursor()
        name = f"{self.name}_new"
        with self.folder.database(making) as path:
            self.connection.execute(f"ATTACH '{quoted(path)}' AS {name}")
        try:
            self.connection.begin()
            for statement in create_statements(name):
                self.connection.execute(statement)
            appender = self.connection.appender(f"{name}.meta")
            appender.append_row(FORMAT, new_id(), time.time(), 0)
            appender.flush()
            self.connection.commit()
        finally:
            with exclusive_access():
                self.connection.execute(f"DETACH {name}")
        self.folder.give(making)
        self.lease.mark()
        self.folder.rename(making, CATALOG)

    def _check(self) -> int:
        """Check that the attached file is a catalog of Stepwell with all acknowledged commits; return its format."""
        import duckdb

        try:
            cursor = self.connection.execute("SELECT * FROM @meta".replace("@", f"{self.name}."))
            row = cursor.fetchone()
        except duckdb.CatalogException:
            row = None
        except duckdb.Error as error:
            raise self._explained(error) from error
        if row is None:
            raise StoreDamagedError(
                f"{self._path} is a DuckDB database, but not the catalog of a Stepwell store",
                remedy="choose another store directory",
            )
        meta = dict(zip([column[0] for column in cursor.description], row, strict=True))
        number = int(meta["format"])
        if number > FORMAT:
            raise StoreFormatError(
                f"the store {self.directory} was written by a newer Stepwell (format {number}; this one knows {FORMAT})",
                remedy="upgrade: pip install -U stepwell; or choose another store directory",
            )
        self.store_id = meta["store_id"]
        self.commits = meta.get("commits") or 0
        seal = read_seal(self._source)
        lost = seal.lost_commits(self.commits, self.store_id) if seal is not None else 0
        if lost:
            raise self._damaged(
                f"lacks the last {lost} commits that were acknowledged"
                if lost > 1
                else "lacks the last acknowledged commit",
                "its log was cut short or removed, or an older copy was put in its place",
            )
        return number

    def _explained(self, error: Exception) -> StoreError:
        text = one_line(error)
        failure = trouble(error, f"the catalog {self._path} cannot be opened")
        if failure is not None:
            return failure
        if "version number" in text:
            return StoreFormatError(
                f"the store {self.directory} was written by a newer DuckDB",
                where=text,
                remedy="upgrade: pip install -U duckdb; or choose another store directory",
            )
        if "Could not set lock" in text or "lock on file" in text:
            return StoreError(
                f"the catalog {self._path} is open in a program other than Stepwell",
                where=text,
                remedy="close it there: a DuckDB file can be open in one program at a time",
            )
        if "already attached" in text:
            return StoreError(
                f"the store {self.directory} was in use when this process was forked",
                where=text,
                remedy="start worker processes with the method 'spawn'; or open the store after the fork only",
            )
        return self._damaged("cannot be read", text)

    def _damaged(self, problem: str, where: str) -> StoreDamagedError:
        return StoreDamagedError(
            f"the catalog {self._path} {problem}",
            where=where,
            remedy=f"stepwell doctor --rebuild --store {self.directory}",
        )


def _copy_files(folder: Folder) -> str:
    """Copy the seal, catalog and log of a store without its lock, when two reads have given the same contents; return the new folder."""
    for _ in range(_TRIES):
        first = _read_files(folder)
        time.sleep(_STILL)
        if _read_files(folder) == first:
            target = tempfile.mkdtemp(prefix="stepwell-copy-")
            for name, data in first.items():
                Path(target, name).write_bytes(data)
            return target
    raise StoreError(
        f"the store {folder.path} changes all the time, and cannot be locked",
        remedy="try again later, or ask its owner for permission to read catalog.lock",
    )


def _read_files(folder: Folder) -> dict[str, bytes]:
    # The seal is read first, because it must not be newer than the catalog.
    files = {}
    for name in (SEAL, CATALOG, LOG):
        with contextlib.suppress(FileNotFoundError):
            files[name] = folder.read(name)
    return files


def quoted(path: str) -> str:
    """Return a path escaped for a quoted SQL string."""
    return path.replace("'", "''")
