"""The catalog file of a store, which is attached to the in-memory DuckDB instance of the process while the lease is held.

One instance lives as long as the process (`instance`). The catalog thread of each store attaches the store's catalog to the instance under
a unique name, and detaches it before it releases the lease. DuckDB writes commits to a *log*, the file ``catalog.duckdb.wal``. DETACH writes
a checkpoint: it moves the contents of the log into the catalog file. So a store that is not in use has no log.

Nothing else in the process may open ``catalog.duckdb``, because closing any descriptor of the file would release DuckDB's lock.

A store can come from another person's archive or repository. If its catalog contained a view instead of a table, a query could read any
file; if it contained a trigger, adding rows could read any file. Stepwell creates neither, so a catalog that contains a view or a trigger
is refused. The other files in the store directory are checked by `Folder.examine`.

A catalog with fewer commits than were acknowledged is refused, too (see `lease`). If there is a log before the catalog is attached, the last
process that attached the catalog died or could not write the checkpoint. Attaching the catalog for writing would replay the log,
and could destroy the readable part of a damaged log. So in this case the catalog is first attached read-only and checked.

A catalog of an older format is copied to ``catalog.format-N.duckdb``, and then migrated in one transaction. If the process is killed before
the commit, the old catalog is intact.
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
    """Raise an error if an attached catalog contains a view or a trigger, which could read files when the catalog is used.

    Parameters
    ----------
    connection, name
        The connection, and the name of the attached catalog.
    directory
        The store directory, for the message.

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
            where=f"the {kind} could read and write files when the store is used",
            remedy="choose another store directory, and find out where this store comes from",
        )


Fingerprint: TypeAlias = tuple[Any, ...]
"""The result of `Attachment.stat`. In `Attachment.last_fingerprint`, the token of the lease comes before this result. If two
fingerprints are equal, the catalog has not changed in the meantime."""

CATALOG = "catalog.duckdb"
LOG = "catalog.duckdb.wal"
_TRIES = 100
"""Maximum number of attempts to make a private copy of a catalog."""
_STILL = 0.05
"""Seconds for which a catalog must stay unchanged before its private copy is used."""

_aliases = count(1)


class Attachment:
    """The state of the catalog of one store in this process: attached or detached. Only the catalog thread may change this state.

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
        """The name of the attached catalog in SQL statements."""
        self.is_open = False
        """True if the catalog is attached."""
        self.is_stuck = False
        """True if the catalog could not be detached, because DuckDB keeps its file open."""
        self.store_id = ""
        self.last_fingerprint: Fingerprint | None = None
        """The token of the lease and the result of `stat` when this process last detached the catalog.

        None if this process has not detached the catalog yet, or if its last attempt to detach the catalog failed.
        """
        self.epoch = 0
        """A number that is incremented when another process has changed the catalog, or this process has changed or deleted rows.

        Rows that were read in an earlier epoch may be out of date.
        """
        self._is_checked = False
        """True if this process has checked the catalog for views and triggers since another process last changed it."""
        self.write_error: StoreError | None = None
        """The error that writing would have raised when the catalog was last attached; None if this user could write to the store then."""
        self.notices: list[Notice] = []
        """Notices for the user. The next thread that asks the catalog thread a question passes them to `Catalog.notify`."""
        self._source = folder
        """The folder from which the catalog and its seal are read: the store directory, or the folder of a private copy."""
        self._copy = ""
        self._copied_state: Fingerprint = ()
        self.commits = 0
        """The number of commits in the attached catalog."""
        self._path = folder.path / CATALOG

    def attach(self, *, create: bool = True) -> None:
        """Take the lease and attach the catalog; do nothing if it is attached. If this user cannot write to the store, attach it for reading.

        Parameters
        ----------
        create
            True to create the store and its catalog if they are missing.

        Raises
        ------
        StoreNotWritableError
            If the store is missing and cannot be created, or its lock files cannot be created.
        UntrustedStoreError
            If the store contains an entry, a view or a trigger that Stepwell never creates.
        StoreFormatError
            If a newer version of Stepwell or DuckDB wrote the catalog.
        StoreDamagedError
            If the catalog cannot be read, is a database of another program, or lacks acknowledged commits.
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
        """Return False if the catalog is attached to a DuckDB instance that a fatal error has ended; True otherwise."""
        if not self.is_open:
            return True
        try:
            self.connection.execute("SELECT 1")
        except Exception:
            return False
        return True

    def _check_writable(self) -> None:
        """Set `write_error` to the error that writing to the store would raise, or to None. The check itself writes nothing."""
        obstacle = self.folder.obstacle((CATALOG, LOG, "catalog.lock", "want.lock", SEAL, "objects", "tmp", "writers"))
        self.write_error = unusable_directory(self.directory, obstacle, "written") if obstacle is not None else None

    def _attach_for_reading(self) -> None:
        """Attach the catalog read-only, under the lease.

        If the lease cannot be taken, or the catalog has an older format, attach a private copy of the catalog instead.
        """
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
        """Attach a private copy of the catalog, its log and its seal, made in a temporary folder.

        If the catalog and its log are unchanged since the last copy, that copy is attached again.

        Parameters
        ----------
        without_lease
            True if this process does not hold the lease. Then another process may be changing the catalog, so a notice tells the user when the
            copy was made.
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
        """Write the checkpoint, detach the catalog, and release the lease.

        If the checkpoint fails, release the lease and raise the error of the checkpoint. No committed row is lost, because the log next to
        the catalog contains the rows.

        If DuckDB keeps the catalog file open, set `is_stuck` and raise `StoreError`. The lease is then kept until this process ends, because no
        other process may open the file.
        """
        if not self.is_open:
            return
        failure = self._detach()
        self.last_fingerprint = None if failure else (self.lease.token(), *self.stat())
        self.lease.release()
        if failure:
            raise failure

    def discard(self) -> None:
        """Detach the catalog after an error, and roll back the transaction if one is unfinished."""
        self._renew()
        self.detach()

    def replace(self, making: str) -> None:
        """Detach the old catalog, rename the file ``making`` to ``catalog.duckdb``, and attach this new catalog. The lease is held throughout.

        If the checkpoint of the old catalog fails or leaves a log, ``making`` is not renamed, because the log belongs to the old catalog. Then the
        old catalog is attached again, and the error of the checkpoint, if there is one, is raised.

        If no catalog can be attached, the lease is released and the error is raised.
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
        """Write the checkpoint and detach the catalog; return the error of the checkpoint, or None if it succeeded.

        Raises
        ------
        StoreError
            If DuckDB keeps the catalog file open.
        """
        failure: Exception | None = None
        if not self.folder.is_in_place():
            # The store directory was moved. DuckDB would remove the log by its old path, where another store may be now. So no checkpoint is
            # written, and the next process replays the log.
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
            raise StoreError(
                f"the catalog {self._path} cannot be closed, so no other process can use the store",
                remedy="restart this process (the kernel)",
            ) from failure
        self.is_open = False
        self.connection.close()
        self.connection = None
        if failure is None:
            with contextlib.suppress(OSError):
                # An empty log is left if `prepare_log` created it for a transaction that wrote nothing.
                if not self._has_log():
                    self.folder.unlink(LOG)
        return failure

    def prepare_log(self) -> None:
        """Create an empty log before a transaction, unless there is a log.

        If DuckDB created the log, DuckDB would follow a link with the name of the log, and the log would not get the mode of a shared store.
        """
        with contextlib.suppress(FileExistsError):
            if not self.folder.exists(LOG):
                self.folder.write(LOG, b"")

    def _has_log(self) -> bool:
        """Return True if there is a log with contents, which means that a process died or could not write the checkpoint."""
        try:
            return self.folder.stat(LOG).st_size > 0
        except FileNotFoundError:
            return False

    def _renew(self) -> None:
        """Open a new connection in place of the present one. If the DuckDB instance no longer executes statements, start another instance."""
        if self.connection is not None:
            self.connection.close()
        give_up_if_dead()
        self.connection = cursor()

    def _is_attached(self) -> bool:
        """Return True if the catalog is attached to the DuckDB instance. A DETACH that raises an error may have detached the catalog or not."""
        with exclusive_access():
            names = self.connection.execute("SELECT database_name FROM duckdb_databases()").fetchall()
        return (self.name,) in names

    def unchanged(self) -> bool:
        """Return True if no other process has changed the catalog since this process last attached it. Any thread may call this.

        Rows that were read in an earlier `epoch` may be out of date even if this returns True.
        """
        if self.is_open:
            return True
        seen = self.last_fingerprint
        return seen is not None and seen == (self.lease.token(), *self.stat())

    def stat(self) -> Fingerprint:
        """Return six numbers: the size, modification time and inode of the catalog, then the same three numbers of its log.

        All three numbers of a missing file are -1. The files are not opened.
        """
        return (*self._stat(CATALOG), *self._stat(LOG))

    def _stat(self, name: str) -> tuple[int, int, int]:
        try:
            status = self.folder.glance(name)
        except OSError:
            return (-1, -1, -1)
        return (status.st_size, status.st_mtime_ns, status.st_ino)

    def abandon(self) -> None:
        """In a forked child, set the state to detached without touching the catalog, which the parent still uses."""
        if self.connection is not None:
            leak(self.connection)
            self.connection = None
        self.name = f"store_{next(_aliases)}"
        self.is_open = False
        self.last_fingerprint = None
        self.lease.abandon()

    def count(self) -> None:
        """Increment the number of commits in the catalog, as the last change of the transaction that is about to be committed."""
        self.connection.execute("UPDATE @meta SET commits = ?".replace("@", f"{self.name}."), [self.commits + 1])

    def acknowledge(self) -> None:
        """Write the number of commits to the seal. Called after each commit, before the commit is reported to the threads that wait for it."""
        self.commits += 1
        write_seal(self.folder, self.commits, self.store_id)

    def damage(self, error: BaseException, *signs: str) -> StoreDamagedError | None:
        """Return a `StoreDamagedError` if an error of DuckDB means that the catalog is damaged; None for any other error.

        DuckDB detects damage only when it reads the damaged block, so any statement can raise such an error.

        Parameters
        ----------
        error
            The error of DuckDB.
        signs
            Strings that also mean damage if the error's message contains them.
        """
        text = str(error)
        if trouble(error, "") is None and any(
            sign in text for sign in ("Corrupt", "Could not read enough bytes", "checksum", "database has been invalid", *signs)
        ):
            return self._damaged("cannot be read", one_line(error))
        return None

    def _attach_existing(self) -> None:
        """Attach the catalog for writing, check it, and migrate it if it has an older format.

        If there is a log, the catalog is first attached read-only and checked.
        """
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
                # A detached catalog has no log, so copying one file suffices.
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
                        f"{what}; nothing was changed", where=one_line(error), remedy="try again"
                    ) from error
        except BaseException:
            self._detach_quietly()
            raise
        self.is_open = True

    def _check_tables_only(self) -> None:
        """Raise an error if the catalog contains a view or a trigger. The check is repeated only after another process has changed the catalog."""
        if not self._is_checked:
            vet_catalog(self.connection, self.name, self.directory)
            self._is_checked = True

    def _attach_file(self, options: str = "") -> None:
        """Attach the catalog file to the DuckDB instance, without checking its contents; ``options`` are those of the ATTACH statement."""
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
                    # A fatal error, perhaps of another store, may have ended the instance.
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
        """Detach the catalog file if it is attached. Ignore errors of DuckDB."""
        import duckdb

        with contextlib.suppress(duckdb.Error), exclusive_access():
            self.connection.execute(f"DETACH DATABASE IF EXISTS {self.name}")

    def _refuse_lost_catalog(self) -> None:
        """Raise `StoreDamagedError` if the catalog is missing but once existed, so that no new catalog is created in its place."""
        seal = read_seal(self.folder)
        if self._has_log() or (seal is not None and seal.commits):
            raise self._damaged("is missing", "the store had a catalog before: its seal or its log still exists")

    def _create(self) -> None:
        """Create an empty catalog.

        The file is created under a temporary name and then renamed, so that a killed process leaves no incomplete catalog.
        """
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
        """Raise an error unless the attached file is a catalog of Stepwell with all acknowledged commits; return the number of its format."""
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
                f"{self._path} is a DuckDB database of another program, not the catalog of a Stepwell store",
                remedy="choose another store directory",
            )
        meta = dict(zip([column[0] for column in cursor.description], row, strict=True))
        number = int(meta["format"])
        if number > FORMAT:
            raise StoreFormatError(
                f"the store {self.directory} was written by a newer version of Stepwell"
                f" (format {number}; the installed version reads formats up to {FORMAT})",
                remedy="upgrade Stepwell with pip install -U stepwell, or choose another store directory",
            )
        self.store_id = meta["store_id"]
        self.commits = meta.get("commits") or 0
        seal = read_seal(self._source)
        lost = seal.lost_commits(self.commits, self.store_id) if seal is not None else 0
        if lost:
            raise self._damaged(
                f"lacks the last {lost} commits that were acknowledged" if lost > 1 else "lacks the last acknowledged commit",
                "the log of the catalog was truncated or removed, or the catalog was replaced by an older copy",
            )
        return number

    def _explained(self, error: Exception) -> StoreError:
        """Return the `StoreError` that explains why DuckDB could not attach or read the catalog."""
        text = one_line(error)
        failure = trouble(error, f"the catalog {self._path} cannot be opened")
        if failure is not None:
            return failure
        if "version number" in text:
            return StoreFormatError(
                f"the store {self.directory} was written by a newer version of DuckDB",
                where=text,
                remedy="upgrade DuckDB with pip install -U duckdb, or choose another store directory",
            )
        if "Could not set lock" in text or "lock on file" in text:
            return StoreError(
                f"the catalog {self._path} is open in another program, and only one program at a time can use a DuckDB file",
                where=text,
                remedy="close the file in the other program, then try again",
            )
        if "already attached" in text:
            return StoreError(
                f"the store {self.directory} was in use when this process was forked",
                where=text,
                remedy="start worker processes with the method 'spawn', or open the store only after the fork",
            )
        return self._damaged("cannot be read", text)

    def _damaged(self, problem: str, where: str) -> StoreDamagedError:
        """Return the error with the message ``the catalog PATH PROBLEM``, and the cause ``where``."""
        return StoreDamagedError(
            f"the catalog {self._path} {problem}",
            where=where,
            remedy=f"rebuild it from the readable tables and the value files: stepwell doctor --rebuild --store {self.directory}",
        )


def _copy_files(folder: Folder) -> str:
    """Copy the seal, catalog and log of a store to a new temporary folder; return the path of this folder.

    The files are read twice, with a short pause. If the contents differ, a process is changing the files, and they are read twice again. Raise
    `StoreError` if the contents differ in each of `_TRIES` attempts.
    """
    for _ in range(_TRIES):
        first = _read_files(folder)
        time.sleep(_STILL)
        if _read_files(folder) == first:
            target = tempfile.mkdtemp(prefix="stepwell-copy-")
            for name, data in first.items():
                Path(target, name).write_bytes(data)
            return target
    raise StoreError(
        f"the store {folder.path} cannot be read: you have no permission to lock it, and other processes keep changing it",
        remedy="try again later, or ask the owner of the store for permission to read its file catalog.lock",
    )


def _read_files(folder: Folder) -> dict[str, bytes]:
    """Return the contents of the seal, catalog and log by name; a missing file is omitted."""
    # The seal is read first. If it were newer than the copied catalog, commits would seem to be lost.
    files = {}
    for name in (SEAL, CATALOG, LOG):
        with contextlib.suppress(FileNotFoundError):
            files[name] = folder.read(name)
    return files


def quoted(path: str) -> str:
    """Return ``path`` with single quotes doubled, for use between single quotes in SQL."""
    return path.replace("'", "''")
