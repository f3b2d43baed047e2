"""The catalog file, attached to a warm in-memory DuckDB instance for as long as the lease is held.

A store can come in an archive or a repository of another person. A view in the place of one of our tables would read any file when we
ask for rows; a trigger would do so when we add some. Stepwell makes neither. What the directory must not hold: `Folder.examine`.

One instance lives as long as the process (`instance`); each store's catalog thread attaches its file to it, under a name of its own,
and detaches it before it lets the lease go.
DETACH writes the checkpoint, so that a store at rest is one file without a log beside it.

Nothing else in the process may open ``catalog.duckdb``: closing any descriptor of it would drop DuckDB's own lock.

An attach refuses a catalog that has fewer commits than were acknowledged (`seal`). A log beside the catalog means that its last holder
died: then the catalog is looked at read-only first, since attaching it for writing replays the log, and what a damaged one still
held would be gone. A catalog of an older format is copied to ``catalog.format-N.duckdb`` and then brought to this one in a single
transaction: a process killed in between leaves the older catalog, whole.
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
from stepwell.kernel_runtime.store.catalog.instance import Connection, alone, cursor, give_up_if_dead, leak
from stepwell.kernel_runtime.store.catalog.lease import SEAL, Lease, read_seal, write_seal
from stepwell.kernel_runtime.store.catalog.schema import FORMAT, create_statements, keep_copy, migrate
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.trouble import keep_reserve, one_line, refused, trouble
from stepwell.kernel_runtime.text import moment

_EXTRA = """
    SELECT 'view', view_name FROM duckdb_views() WHERE database_name = $1 AND NOT internal
    UNION ALL SELECT 'trigger', trigger_name FROM duckdb_triggers() WHERE database_name = $1
"""


def vet_catalog(connection: Any, name: str, directory: Path) -> None:
    """Refuse an attached catalog that is more than tables.

    Raises
    ------
    UntrustedStoreError
        Naming what it is.
    """
    with alone():
        found = connection.execute(_EXTRA, [name]).fetchall()
    if found:
        kind, what = found[0]
        raise UntrustedStoreError(
            f"the catalog of the store {directory} has a {kind} in it ({what!r}), which Stepwell never makes",
            where="it could read and write files when the store is used",
            remedy="find out where the store comes from; choose another store directory",
        )


Fingerprint: TypeAlias = tuple[Any, ...]

CATALOG = "catalog.duckdb"
LOG = "catalog.duckdb.wal"
_TRIES = 100
_STILL = 0.05
"""Seconds in which a store that is copied without its lock must not change."""

_aliases = count(1)


class Attachment:
    """One store's catalog: attached or not. Everything but `seen` and `lease.token` is the catalog thread's.

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
        self.open = False
        self.stuck = False
        self.store_id = ""
        self.seen: Fingerprint | None = None
        """What the catalog looked like when we last let it go."""
        self.epoch = 0
        """Grows whenever an attach finds that somebody else wrote since."""
        self._vetted = False
        """Whether the catalog was looked at since somebody else wrote it."""
        self.read_only: StoreError | None = None
        """Why nothing can be written, as of the last attach; None if it can."""
        self.notices: list[Notice] = []
        """Lines for whoever asks next."""
        self._source = folder
        """Where the catalog that is attached, and its seal, are."""
        self._copy = ""
        self._copied: Fingerprint = ()
        self.commits = 0
        """How many the attached catalog has."""
        self._path = folder.path / CATALOG

    def attach(self, *, create: bool = True) -> None:
        """Take the lease and attach the catalog, creating it where there is none.

        Raises
        ------
        StoreNotWritableError
            If the directory or its lock files cannot be made.
        StoreFormatError
            If a newer Stepwell, or a newer DuckDB, wrote the catalog.
        StoreDamagedError
            If the catalog is no database, or not ours, or lacks what was acknowledged.
        """
        if self.open:
            return
        folder = self.folder
        try:
            try:
                folder.examine()
                made = not folder.exists(CATALOG)
            except FileNotFoundError:
                made = True
            if create and made:
                folder.examine(create=True)
            existed = folder.exists("catalog.lock")
            self._look_whether_writable()
            if self.read_only is None:
                self.lease.acquire()
            elif made:
                raise self.read_only
            else:
                existed = True
                self._attach_for_reading()
                return
        except OSError as error:
            raise refused(self.directory, error) from error
        try:
            if self.seen is None or self.seen != (self.lease.token(), *self.stat()):
                self.epoch += 1
                self._vetted = False
            if not folder.exists(CATALOG):
                self._refuse_to_begin_anew()
                if create:
                    self._create()
            self._attach_existing()
            keep_reserve(folder)
        except BaseException as error:
            if not existed and isinstance(error, StoreError):
                self.lease.remove_files()
            self.lease.release()
            if isinstance(error, OSError | MemoryError):
                raise refused(self.directory, error) from error
            raise

    def is_usable(self) -> bool:
        """Return False if the catalog is attached to an instance that no longer executes statements."""
        if not self.open:
            return True
        try:
            self.connection.execute("SELECT 1")
        except Exception:
            return False
        return True

    def _look_whether_writable(self) -> None:
        """Find out, before anything is written, whether this user can write what has to be written."""
        obstacle = self.folder.obstacle((CATALOG, LOG, "catalog.lock", "want.lock", SEAL, "objects", "tmp", "writers"))
        self.read_only = refused(self.directory, obstacle, "written") if obstacle is not None else None

    def _attach_for_reading(self) -> None:
        """Attach the catalog where it is, under the lease; where that cannot be had, or the format is an older one, a copy."""
        try:
            self.lease.acquire(read_only=True)
        except OSError:
            self._attach_copy(told=True)
            return
        try:
            if self.seen is None or self.seen != (self.lease.token(), *self.stat()):
                self.epoch += 1
            self._attach_file("(READ_ONLY)")
            try:
                vet_catalog(self.connection, self.name, self.directory)
                number = self._check()
            except BaseException:
                self._let_go()
                raise
            if number < FORMAT:
                self._let_go()
                self._attach_copy(told=False)
            self.open = True
        except BaseException:
            self.lease.release()
            raise

    def _attach_copy(self, *, told: bool) -> None:
        """Attach a private copy of catalog and log, made while nobody changed them; say of what time it is.

        Parameters
        ----------
        told
            Whether the copy was made without the lease, so that it can be out of date.
        """
        state = self.stat()
        if not self._copy or self._copied != state:
            self._copy, self._copied = _copied(self.folder), state
            weakref.finalize(self, shutil.rmtree, self._copy, ignore_errors=True)
            self.epoch += 1
            if told:
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
                self._let_go()
                raise
        finally:
            self._source = self.folder
        self.open = True

    def detach(self) -> None:
        """Write the checkpoint, let the file go, then the lease.

        An error of the checkpoint is raised after both are let go: what was committed is in the log beside the catalog. Only where
        DuckDB keeps the file (`stuck`), the lease is kept too: nobody else may open it then, until this process ends.
        """
        if not self.open:
            return
        failure = self._detached()
        self.seen = None if failure else (self.lease.token(), *self.stat())
        self.lease.release()
        if failure:
            raise failure

    def discard(self) -> None:
        """Let everything go after a failure, with whatever is left of a transaction."""
        self._renew()
        self.detach()

    def replace(self, making: str) -> None:
        """Put another file into the catalog's place and attach that, the lease being held; an error lets the lease go.

        Where the checkpoint fails, or left a log, the catalog stays: the log belongs to it.
        """
        failure = self._detached()
        try:
            if failure is None and not self._has_log():
                self.folder.rename(making, CATALOG)
            self._attach_existing()
        except BaseException:
            self.seen = None
            self.lease.release()
            raise
        if failure:
            raise failure

    def _detached(self) -> Exception | None:
        """Write the checkpoint and let the file go; return the error of the checkpoint, raise one where DuckDB keeps the file."""
        failure: Exception | None = None
        if not self.folder.is_in_place():
            # DuckDB removes the log by its path, where another store may be now: the log stays, and is read by who finds it.
            self.connection.execute("SET checkpoint_on_detach = 'DISABLED'")
        for _ in range(2):
            try:
                with alone():
                    self.connection.execute(f"DETACH {self.name}")
            except Exception as error:
                failure = error
                try:
                    self._renew()
                    listed = self._listed()
                except Exception:
                    listed = True
                if listed:
                    continue
            break
        else:
            self.stuck = True
            raise StoreError(f"the catalog {self._path} cannot be let go", remedy="end this process") from failure
        self.open = False
        self.connection.close()
        self.connection = None
        if failure is None:
            with contextlib.suppress(OSError):
                # Made for a transaction that did not come.
                if not self._has_log():
                    self.folder.unlink(LOG)
        return failure

    def prepare_log(self) -> None:
        """Make the log before DuckDB does, so that it is no link and has the mode of a shared store. Called before a transaction."""
        with contextlib.suppress(FileExistsError):
            if not self.folder.exists(LOG):
                self.folder.write(LOG, b"")

    def _has_log(self) -> bool:
        """Return whether there is a log with anything in it: its last holder died, or could not write the checkpoint."""
        try:
            return self.folder.stat(LOG).st_size > 0
        except FileNotFoundError:
            return False

    def _renew(self) -> None:
        """Take another connection, and where that is of no use another instance."""
        if self.connection is not None:
            self.connection.close()
        give_up_if_dead()
        self.connection = cursor()

    def _listed(self) -> bool:
        """Return whether DuckDB has the file: a DETACH whose checkpoint fails is an error, but detaches."""
        with alone():
            found = self.connection.execute("SELECT database_name FROM duckdb_databases()").fetchall()
        return (self.name,) in found

    def unchanged(self) -> bool:
        """Return whether nobody wrote the catalog since we last had it; true while we have it. Any thread may ask.

        What was read in an older `epoch` is out of date even so.
        """
        if self.open:
            return True
        seen = self.seen
        return seen is not None and seen == (self.lease.token(), *self.stat())

    def stat(self) -> Fingerprint:
        """Return size, time and identity of the catalog and of its log: a stat never opens the files."""
        return (*self._stat(CATALOG), *self._stat(LOG))

    def _stat(self, name: str) -> tuple[int, int, int]:
        try:
            found = self.folder.glance(name)
        except OSError:
            return (-1, -1, -1)
        return (found.st_size, found.st_mtime_ns, found.st_ino)

    def abandon(self) -> None:
        """Forget everything in a forked child."""
        if self.connection is not None:
            leak(self.connection)
            self.connection = None
        self.name = f"store_{next(_aliases)}"
        self.open = False
        self.seen = None
        self.lease.abandon()

    def count(self) -> None:
        """Count a commit inside its own transaction."""
        self.connection.execute("UPDATE @meta SET commits = ?".replace("@", f"{self.name}."), [self.commits + 1])

    def acknowledge(self) -> None:
        """Seal a commit that was counted and is done, before anybody is told."""
        self.commits += 1
        write_seal(self.folder, self.commits, self.store_id)

    def damage(self, error: BaseException, *signs: str) -> StoreDamagedError | None:
        """Return our error for one of DuckDB's that means that the file is damaged: parts are read, and checked, when needed only.

        Parameters
        ----------
        signs
            What else in its text means that.
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
                self._vet()
                self._check()
            finally:
                self._let_go()
        self._attach_file()
        try:
            self._vet()
            number = self._check()
            if number < FORMAT:
                # Detached, the catalog is one file, without a log.
                self._let_go()
                keep_copy(self.folder, number)
                self._attach_file()
                self.lease.mark()
                self.prepare_log()
                try:
                    migrate(self.connection, self.name, number)
                except duckdb.Error as error:
                    self._renew()
                    what = f"the store {self.directory} could not be brought from format {number} to {FORMAT}"
                    raise trouble(error, what) or StoreError(
                        what, where=one_line(error), remedy="the catalog is as it was: try again"
                    ) from error
        except BaseException:
            self._let_go()
            raise
        self.open = True

    def _vet(self) -> None:
        if not self._vetted:
            vet_catalog(self.connection, self.name, self.directory)
            self._vetted = True

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
            self._let_go()
            raise UntrustedStoreError(
                f"the catalog of the store {self.directory} was replaced while it was opened",
                remedy="find out who changes the store just now, then try again",
            )

    def _let_go(self) -> None:
        """Detach after an error or a look, whatever state the file is in."""
        import duckdb

        with contextlib.suppress(duckdb.Error), alone():
            self.connection.execute(f"DETACH DATABASE IF EXISTS {self.name}")

    def _refuse_to_begin_anew(self) -> None:
        """Refuse to take a store whose catalog was lost for a new one."""
        seal = read_seal(self.folder)
        if self._has_log() or (seal is not None and seal.commits):
            raise self._damaged("is gone", "what belongs to it is there: its seal, or its log")

    def _create(self) -> None:
        """Make the catalog beside its place and rename it: a process killed here leaves no half catalog."""
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
            with alone():
                self.connection.execute(f"DETACH {name}")
        self.folder.give(making)
        self.lease.mark()
        self.folder.rename(making, CATALOG)

    def _check(self) -> int:
        """Return the format of the attached catalog, after checking that it is ours and has what was acknowledged."""
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
        lost = seal.lost(self.commits, self.store_id) if seal is not None else 0
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
        found = trouble(error, f"the catalog {self._path} cannot be opened")
        if found is not None:
            return found
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

    def _damaged(self, how: str, where: str) -> StoreDamagedError:
        return StoreDamagedError(
            f"the catalog {self._path} {how}", where=where, remedy=f"stepwell doctor --rebuild --store {self.directory}"
        )


def _copied(folder: Folder) -> str:
    """Copy seal, catalog and log of a store that others may write just now, until nothing changed meanwhile."""
    for _ in range(_TRIES):
        first = _read_all(folder)
        time.sleep(_STILL)
        if _read_all(folder) == first:
            target = tempfile.mkdtemp(prefix="stepwell-copy-")
            for name, data in first.items():
                Path(target, name).write_bytes(data)
            return target
    raise StoreError(
        f"the store {folder.path} is written all the time, and cannot be locked",
        remedy="try again when its writer is done; or ask for the right to read catalog.lock",
    )


def _read_all(folder: Folder) -> dict[str, bytes]:
    # The seal first: it must not be newer than the catalog.
    found = {}
    for name in (SEAL, CATALOG, LOG):
        with contextlib.suppress(FileNotFoundError):
            found[name] = folder.read(name)
    return found


def quoted(path: str) -> str:
    """Return a path as a text of SQL has it between its quotes."""
    return path.replace("'", "''")
