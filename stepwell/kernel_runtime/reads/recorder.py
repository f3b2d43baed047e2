# ruff: noqa: PTH100, PTH109, PTH202, PTH113, PTH117, PTH110, PTH111, PTH112, PTH118, PTH119, PTH120 - strings are quicker than paths, and an audit hook runs inside every open()
"""`ReadRecorder` notes what one step reads while the step runs, and computes the digests of these reads when the step ends.

Files and folders that the step created, and environment variables that it set, are not recorded as reads. A file that the step both read *and*
changed is recorded with its content after the step: the result is reused until something else changes the file. For a live cell, a file of
up to 64 MiB is recorded with its content before the step, because a reuse of the cell makes the change again.
"""

from __future__ import annotations

import io
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import redirect_stdout
from contextvars import ContextVar, Token
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.reads import checks
from stepwell.kernel_runtime.reads.checks import (
    ABSENT,
    UNSTABLE,
    Tree,
    file_digest,
    file_stat,
    status,
    too_recent,
)
from stepwell.kernel_runtime.records.materializations import Read
from stepwell.kernel_runtime.versions import queries
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.environment import ALL, Keyed, all_digest, name_digest, process_keyed
from stepwell.kernel_runtime.versions.library_state import FOLDER, WARNINGS, state_digest, warnings_watched
from stepwell.kernel_runtime.versions.ownership import OURS, is_input_path
from stepwell.kernel_runtime.versions.references import ImportReads

_UNBOUND: Any = object()

_current: ContextVar[ReadRecorder | None] = ContextVar("stepwell_reads", default=None)
threads: dict[int, ReadRecorder] = {}
"""Maps the identifier of each thread that a step started to the recorder of this step."""
_WRITE_AHEAD = ("-wal", ".wal")
_MOST_BEFORE = 1 << 26
"""The maximum size in bytes of a file whose content is digested before the step changes the file."""
_CLOCK_TICK_NS = 20_000_000
"""The modification time of a file that is changed now can be earlier than `time.time_ns`, at most by this number of nanoseconds."""


def value_digest(value: Any) -> str:
    """Return the digest of a variable's value for a recorded read; `UNSTABLE` if the value has no digest, so that the read never holds."""
    return data_version(value) or UNSTABLE


def active() -> ReadRecorder | None:
    """Return the recorder of the step in which the calling code runs; None if there is no such step, or if its recorder is paused."""
    recorder = _current.get()
    if recorder is None and threads:
        recorder = threads.get(threading.get_ident())
    return recorder if recorder is None or not recorder.is_paused else None


class ReadRecorder:
    """Records the reads of one step, whose body runs inside the ``with`` block.

    Parameters
    ----------
    exclude
        Folders, such as the store's folder. Files in them are never recorded as reads.
    keyed
        Digests the values of environment variables with the user's key. If None, a key that only this process has is used, so that the digests
        cannot be compared in another process.
    declared_paths
        Files and patterns that are recorded even if the body does not read them (the option ``reads``). A relative path starts at the
        working directory.
    namespace
        The notebook's variables. A name that a library looks up is recorded only if it is one of these variables. None outside notebooks.
    unrecorded_names
        Returns the names of variables that are never recorded as reads, because the memo key of the step covers them: they are inputs, or the
        code of the step refers to them.
    keep_digests
        True to record a file that the step both reads and changes with its content before the change, if the file is not larger than 64 MiB.
        Otherwise, such a file is recorded with its content after the change.
    bound_names
        Names that the body binds. If a library looks up such a name after the body has bound it to another object, this is not a read.
    reads_filters
        True if the step's code accesses ``warnings.filters``. Then the warning filters are recorded when the step starts. If False, they are
        recorded only if the step issues a warning. To detect this, the recorder adds a filter to ``warnings.filters`` while the step runs. For
        code that accesses the list nothing is added, because the code would see this filter.
    """

    # The defaults are class attributes, because each step has a recorder and most steps read nothing.
    _has_reads = False
    is_paused = False
    """True while Stepwell's own code runs, whose reads are not reads of the step."""
    network: tuple[str, ...] = ()
    """The hosts to which the step opened a connection, in order and without repetitions."""
    unseen_reads: tuple[str, ...] = ()
    """Reads by native readers that no later run can check, each as the name of the reader, a colon, and what the reader reads: for example,
    ``scan_parquet: s3://bucket``."""
    children: tuple[str, ...] = ()
    """The names of the programs and processes that the step started."""
    _result: tuple[Read, ...] = ()
    _token: Token[ReadRecorder | None] | None = None
    _files: dict[str, tuple[int, ...] | None] | None = None
    _folders: dict[str, list[str] | None] | None = None
    _globs: dict[str, list[str]] | None = None
    _names: dict[str, str | None] | None = None
    _environment: dict[str, str] | None = None
    _absent_variables: tuple[str, ...] = ()
    _assets: dict[tuple[str, ...], str] | None = None
    _states: dict[str, str] | None = None
    _states_set: frozenset[str] = frozenset()
    _objects: dict[str, str] | None = None
    """Maps the name of each object that was in DuckDB's default connection before the step first used the connection to the object's digest. None
    if the step has not used the connection yet."""
    _leftovers: tuple[str, ...] = ()
    """Descriptions of the objects without a digest that the step left in DuckDB's default connection."""
    _databases: frozenset[str] = frozenset()
    _names_set: frozenset[str] = frozenset()
    _created: frozenset[str] = frozenset()
    _removed_paths: frozenset[str] = frozenset()
    _lost_files: frozenset[str] = frozenset()
    """The files and folders that existed before the step and that the step removed."""
    _statuses: dict[tuple[str, str], str] | None = None
    """The attributes of paths, such as kind or size, that the step read without opening a file. Maps a path and the
    `aspect` (see `checks.status`) to the values of these attributes, as `checks.status` returns them. None if no attributes were read yet."""
    _tree: Tree | None = None
    """The project's files before the first child process started; None if no child process has started."""
    _last_host: str = ""
    _start_time: int = 0
    _end_warnings: Callable[[], None]

    def __init__(
        self,
        exclude: tuple[Path, ...] = (),
        keyed: Keyed | None = None,
        declared_paths: Iterable[str] = (),
        namespace: dict[str, Any] | None = None,
        unrecorded_names: Callable[[], Collection[str]] = tuple,
        *,
        keep_digests: bool = False,
        bound_names: Iterable[str] = (),
        reads_filters: bool = False,
    ) -> None:
        self._keeps_before = keep_digests
        self._reads_filters = reads_filters
        self._own_names = {name: namespace.get(name, _UNBOUND) for name in bound_names} if namespace is not None else {}
        self.appended: frozenset[str] = frozenset()
        """The files that the step opened for appending when it first wrote to them."""
        self.digests_before: dict[str, str] = {}
        """Maps the path of a file that the step changed or removed to the digest of its content before, if this content was digested."""
        self._namespace = namespace
        self._unrecorded_names = unrecorded_names
        self._looked_up: dict[str, str] = {}
        self._exclude = exclude
        self._keyed = keyed
        self._declared_paths = declared_paths
        self._written_files: dict[str, bool] = {}

    def __enter__(self) -> Self:
        self._modules = len(sys.modules)
        if self._declared_paths:
            for path in self._declared_paths:
                self.path_read(path)
        self._start_time = time.time_ns()
        self._token = _current.set(self)
        if self._reads_filters:
            self.state_read(WARNINGS)
            self.state_read(f"{WARNINGS} text")
        else:
            self._end_warnings = warnings_watched(self._warned, data_version)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._token is not None:
            if not self._reads_filters:
                self._end_warnings()
                # The function refers to the recorder. Without this statement, only the garbage collector could free the recorder of each step.
                del self._end_warnings
            _current.reset(self._token)
            self._token = None
        self._note_children()
        if len(sys.modules) > self._modules:
            self._note_modules()
        if self._has_reads:
            self._result = tuple(self._digested())

    @property
    def reads(self) -> tuple[Read, ...]:
        """The recorded reads. The tuple is empty until the ``with`` block ends."""
        return self._result

    # -- notes while the step runs

    def file_opened(self, path: str, *, reads: bool, writes: bool, appends: bool = False) -> None:
        """Record that the step is about to open a file for reading, for writing, or for both. If `appends` is True, writing means appending."""
        if reads:
            self._has_reads = True
            if self._files is None:
                self._files = {}
            if path not in self._files and path not in self._written_files:
                self._files[path] = file_stat(path)
        if writes and path not in self._written_files:
            stat = file_stat(path)
            self._written_files[path] = stat is not None
            if appends:
                self.appended |= {path}
            if stat is not None:
                self._note_before(path, stat[0])

    def folder_created(self, path: str) -> None:
        """Record that the step is about to create a folder. Nothing is noted if the folder exists already."""
        path = os.path.abspath(path)
        if not os.path.lexists(path):
            self._created |= {path}

    def path_removed(self, path: str) -> None:
        """Record that the step is about to remove a file, or a folder with everything in it."""
        path = os.path.abspath(path)
        self._removed_paths |= {path}
        if path not in self._written_files and path not in self._created and os.path.isfile(path):
            self._lost_files |= {path}
            self._note_before(path, os.path.getsize(path))
        elif os.path.isdir(path) and path not in self._created:
            tree = [*os.walk(path)]
            inside = [os.path.join(folder, name) for folder, _, names in tree for name in names]
            self._lost_files |= {file for file in inside if file not in self._written_files}
            self._lost_files |= {folder for folder, _, _ in tree if folder not in self._created}

    def _note_before(self, path: str, size: int) -> None:
        """Digest the content of a file that a live cell is about to change or remove, unless its `size` in bytes exceeds 64 MiB.

        With the digest, a later reuse of the cell recognizes a file that has its content from before the change.
        """
        if self._keeps_before and size <= _MOST_BEFORE and is_input_path(path):
            with self.paused():
                self.digests_before[path] = file_digest(path) or ""

    def changes(self) -> dict[str, bool]:
        """Return a dict whose keys are the paths of the files and folders that the step wrote, created or removed.

        The value is True for a path that existed before the step, and False for a path that the step created.
        """
        existed = {
            **dict.fromkeys(self._created, False),
            **self._written_files,
            **dict.fromkeys(self._lost_files, True),
        }
        for path in self._databases:
            if not path.endswith(_WRITE_AHEAD) and path in (self._files or {}) and (self._files or {})[path] != file_stat(path):
                existed[path] = True
        return existed

    @property
    def names_set(self) -> frozenset[str]:
        """The environment variables that the step set or removed."""
        return self._names_set

    def excludes(self, path: str) -> bool:
        """Return True if a path is one of the folders in `exclude`, or is inside one of them."""
        return any(path == str(folder) or path.startswith(os.path.join(folder, "")) for folder in self._exclude)

    def is_table(self, name: str) -> bool:
        """Return True if the notebook has a variable with this name whose value SQL can read as a table."""
        value = self._namespace.get(name) if self._namespace is not None else None
        top = type(value).__module__.partition(".")[0]
        return top in {"pandas", "polars", "pyarrow", "numpy", "duckdb", "_duckdb"} or isinstance(value, dict)

    def looked_up(self, names: Iterable[str], value: Any = None) -> None:
        """Record that a library looked up the names of a formula, an expression or a query.

        Parameters
        ----------
        names
            The names. Those that are not variables of the notebook are ignored.
        value
            The object that the library found, or None if it is unknown. If the object is not the value of the notebook's variable, nothing is
            noted.
        """
        space = self._namespace
        if space is None:
            return
        for name in names:
            if (
                name in space
                and (value is None or value is space[name])
                and name not in self._looked_up
                and space[name] is self._own_names.get(name, space[name])
                and name not in self._unrecorded_names()
            ):
                with self.paused():
                    self._looked_up[name] = value_digest(space[name])
                self._has_reads = True

    def status_read(self, path: str, aspect: str, state: str) -> None:
        """Record that the step read the attributes of a path that `aspect` names; `state` has their values, as `checks.status` returns them."""
        self._has_reads = True
        if self._statuses is None:
            self._statuses = {}
        self._statuses.setdefault((path, aspect), state)

    def knows_status(self, path: str, aspect: str) -> bool:
        """Return True if a read of the attributes of this path that `aspect` names has already been noted."""
        return self._statuses is not None and (path, aspect) in self._statuses

    def folder_listed(self, path: str) -> None:
        """Record that the step is about to list a folder."""
        path = os.path.abspath(path)
        self._has_reads = True
        if self._folders is None:
            self._folders = {}
        if path not in self._folders and is_input_path(os.path.join(path, "")):
            with self.paused():
                self._folders[path] = checks.folder_names(path)

    def path_read(self, path: str) -> None:
        """Record that a native reader is about to read `path`: a file, all files below a folder, or all files that match a pattern."""
        expanded = os.path.expanduser(path)
        path = os.path.abspath(expanded)
        if not is_input_path(path):
            return
        if not os.path.isabs(expanded):
            self.state_read(FOLDER)
        if os.path.isdir(path):
            path = checks.files_below(path)
        elif not checks.has_magic(path) or os.path.exists(path):
            self.file_opened(path, reads=True, writes=False)
            return
        self._has_reads = True
        if self._globs is None:
            self._globs = {}
        if path not in self._globs:
            with self.paused():
                files = self._globs[path] = checks.matches(path)
            for file in files:
                self.file_opened(file, reads=True, writes=False)

    def database_opened(self, path: str, log: str) -> None:
        """Record that the step is about to open a database file, for reading and perhaps for writing.

        Parameters
        ----------
        log
            The suffix of the file with the database's write-ahead log: ``-wal`` or ``.wal``.
        """
        path = os.path.abspath(path)
        exists = os.path.exists(path)
        self.file_opened(path, reads=exists, writes=not exists)
        if exists:
            self.file_opened(path + log, reads=True, writes=False)
            if path not in self._databases and path not in self._written_files:
                self._note_before(path, os.path.getsize(path))
            self._databases |= {path, path + log}

    def name_read(self, name: str, value: str | None) -> None:
        """Record that the step read an environment variable; `value` is None if the variable was not set."""
        self._has_reads = True
        if self._names is None:
            self._names = {}
        self._names[name] = value

    def knows_name(self, name: str) -> bool:
        """Return True if a read of an environment variable need not be noted.

        This is so if the step set the variable, or if a read of the variable or of the whole environment has already been noted.
        """
        return name in self._names_set or (self._names is not None and name in self._names) or self._environment is not None

    def environment_read(self, environment: dict[str, str]) -> None:
        """Record that the step read the whole environment, whose variables are `environment`."""
        self._has_reads = True
        if self._environment is None:
            self._environment = environment
            self._absent_variables = tuple(sorted(self._names_set))

    def name_set(self, name: str) -> None:
        """Record that the step sets or removes an environment variable, so that later reads of this variable by the step are not recorded."""
        self._names_set |= {name}

    def state_read(self, name: str) -> None:
        """Record that the step reads a state that `library_state` knows by this name, for example the options of a library or the working directory."""
        if name in self._states_set or (self._states is not None and name in self._states):
            return
        self._has_reads = True
        if self._states is None:
            self._states = {}
        with self.paused():
            self._states[name] = state_digest(name, data_version)

    def _warned(self, digest: str) -> None:
        """Record that the step issued a warning. This reads the warning filters, which can turn the warning into an error.

        Parameters
        ----------
        digest
            The digest of the warning filters.
        """
        if not self.is_paused:
            self._has_reads = True
            self._states = {WARNINGS: digest} | (self._states or {})

    def state_set(self, name: str) -> None:
        """Record that the step sets a state that `library_state` knows by this name, so that later reads of this state by the step are not recorded."""
        self._states_set |= {name}

    def database_used(self, text: str, leftovers: list[str]) -> None:
        """Record that the step is about to use DuckDB's default connection.

        Parameters
        ----------
        text
            The statement that the connection executes, or the name of the object that is read or created.
        leftovers
            Descriptions of the objects that this use leaves in the connection and that have no digest.
        """
        self._has_reads = True
        if self._objects is None:
            with self.paused():
                self._objects = queries.connection_objects()
            if queries.connection.settings:
                self.state_read(queries.IN_CONNECTION + queries.SETTINGS)
        if self._states is None:
            self._states = {}
        for name in queries.words(text):
            if name in self._objects:
                self._states.setdefault(queries.IN_CONNECTION + name, self._objects[name])
            elif name in queries.connection.temporary and not any(
                name in leftover for leftover in (*self._leftovers, *leftovers)
            ):
                self._states[queries.IN_CONNECTION + name] = UNSTABLE
        self._leftovers = (*self._leftovers, *leftovers)

    def database_changes(self) -> list[str]:
        """Return descriptions of the objects that the step created, changed or removed in DuckDB's default connection."""
        before = self._objects
        if before is None:
            return []
        with self.paused():
            now = queries.connection_objects()
        changed = [f"table {name}" for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        return [f"duckdb's own connection ({change})" for change in dict.fromkeys((*changed, *self._leftovers))]

    def asset_loaded(self, key: str, version: str, where: tuple[str, ...]) -> None:
        """Record that the step loaded the value of an asset.

        Parameters
        ----------
        version
            The data version of the value; if it has none, the id of the materialization.
        where
            Two elements: the notebook and the directory of the store that the step named when it loaded the asset. An element that the step did
            not name is an empty string. The tuple is empty if the step named neither.
        """
        self._has_reads = True
        if self._assets is None:
            self._assets = {}
        self._assets.setdefault((key, *where), version)

    def host_asked(self, host: str) -> None:
        """Record that the step asks for the network address of a host."""
        self._last_host = host

    def connected(self, address: str) -> None:
        """Record that the step connects to the host whose address the step last asked for; if it has asked for none, to `address`."""
        host = self._last_host or address
        if host not in self.network:
            self.network = (*self.network, host)

    def unseen_read(self, reader: str, item: str) -> None:
        """Record that the native reader `reader` reads something that no later run can check; `item` names it, for example ``s3://bucket``."""
        line = f"{reader}: {item}"
        if line not in self.unseen_reads:
            self.unseen_reads = (*self.unseen_reads, line)

    def location_read(self, reader: str, location: str, folder: str = "") -> None:
        """Record that a native reader is about to read a file, a folder, the files that match a pattern, or a URL.

        Parameters
        ----------
        reader
            The name of the reader, for the notice that changes at a URL are not detected.
        location
            The path, pattern or URL.
        folder
            The folder at which a relative path starts; by default the working directory.
        """
        if "://" in location and not location.startswith("file://"):
            parts = urlsplit(location)
            # The path and query of a signed URL may contain a secret.
            self.unseen_read(reader, f"{parts.scheme}://{parts.hostname or ''}")
        else:
            self.path_read(os.path.join(folder, location.removeprefix("file://")))

    def child_started(self, name: str) -> None:
        """Record that the step is about to start a program or a process."""
        if name not in self.children:
            self.children = (*self.children, name)
        if self._tree is None:
            with self.paused():
                self._tree = Tree(self._roots(), digests=self._keeps_before)

    def _roots(self) -> list[str]:
        """Return the folders that are searched for files that child processes wrote: the working directory, and the folder that contains the store.

        The home folder and the root of the file system are left out, because they are too large.
        """
        folders = [os.getcwd(), *[os.path.dirname(os.path.abspath(folder)) for folder in self._exclude]]
        return [
            folder
            for folder in dict.fromkeys(map(os.path.realpath, folders))
            if folder not in (os.sep, os.path.realpath(os.path.expanduser("~")))
            and not any(folder.startswith(os.path.join(other, "")) for other in map(os.path.realpath, folders))
        ]

    def _note_children(self) -> None:
        """Record the files that child processes wrote, created or removed.

        These are the files that changed since the first child process started, except those that this process changed.
        """
        before = self._tree
        if before is None:
            return
        with self.paused():
            now = Tree(before.roots)
        for path in now.folders - before.folders:
            self._created |= {path}
        for path, stat in now.files.items():
            if path in self._written_files or before.files.get(path) == stat or not is_input_path(path):
                continue
            if path in before.files and path in (self._files or {}) and path not in before.digests:
                # The step read the file, and another process may have changed it.
                continue
            self._written_files[path] = path in before.files
            if path in before.digests:
                self.digests_before[path] = before.digests[path]
        gone = {path for path in before.files.keys() - now.files.keys() if not os.path.lexists(path)}
        for path in gone - self._removed_paths:
            self._removed_paths |= {path}
            if path not in self._written_files:
                self._lost_files |= {path}
                if path in before.digests:
                    self.digests_before[path] = before.digests[path]

    def _note_modules(self) -> None:
        """Record the files of the local modules if the step has imported one.

        The code version does not cover such a module. It may use local modules that were imported before, so their files are recorded, too.
        """
        if any(map(_local_file, [*sys.modules][self._modules :])):
            for file in filter(None, map(_local_file, [*sys.modules])):
                self.path_read(file)

    @property
    def reads_state(self) -> bool:
        """True if environment variables, options of libraries or other state of the process were read."""
        return bool(self._names or self._environment or self._states)

    def paused(self) -> _Pause:
        """Return a context manager: while its block runs, the recorder notes nothing."""
        return _Pause(self)

    # -- digests at the end of the step

    def _digested(self) -> list[Read]:
        exclude = tuple(
            os.path.join(form, "") for path in self._exclude for form in {os.path.abspath(path), os.path.realpath(path)}
        )
        created = tuple(os.path.join(path, "") for path in self._created)
        reads: list[Read] = []

        def is_own(path: str) -> bool:
            if created and path.startswith(created):
                return True
            return bool(exclude) and (path.startswith(exclude) or os.path.realpath(path).startswith(exclude))

        for path, before in sorted((self._files or {}).items()):
            read = None if is_own(path) else self._file(path, before)
            if read is not None:
                reads.append(read)
        for path, names in sorted((self._folders or {}).items()):
            if not is_own(os.path.join(path, "")):
                reads.append(self._listing(path, names, exclude))
        for pattern, paths in sorted((self._globs or {}).items()):
            own = self._created_paths(dict.fromkeys((*paths, *checks.matches(pattern))))
            reads.append(Read("glob", pattern, checks.names_digest(paths, own), (), checks.recorded_names(paths), own))
        files = [read.name for read in reads if read.kind in {"file", "absent", "listing"}]
        for (path, aspect), state in sorted((self._statuses or {}).items()):
            read = None if is_own(os.path.join(path, "")) else self._status(path, aspect, state)
            # A recorded content or listing of a path also covers the kind and size of the path, and the existence of the folders above it.
            if read is None or (aspect in {"kind", "size"} and (path in files or path in (self._files or ()))):
                continue
            if read.digest != "folder" or not any(name.startswith(os.path.join(path, "")) for name in files):
                reads.append(read)
        reads += [Read("state", name, digest) for name, digest in sorted((self._states or {}).items())]
        reads += [Read("name", name, digest) for name, digest in sorted(self._looked_up.items())]
        return [*reads, *self._from_environment(), *self._from_assets()]

    def _status(self, path: str, aspect: str, before: str) -> Read | None:
        if self._written_files.get(path) is False or path in self._created:
            return self._created_file(path) if before == ABSENT else None
        now = status(path, aspect)
        if now != before:
            if path not in self._written_files and not self._has_removed(path):
                if before == ABSENT and self.children:
                    # A program that the step started created the path.
                    return None
                return Read("status", path, UNSTABLE, (), (aspect,))
            if before == ABSENT:
                return None
            if now == ABSENT and aspect in {"kind", "link", "size"} and self._keeps_before:
                # A reuse of the cell removes the path again.
                return Read("status", path, before, (), (aspect,))
        return Read("absent", path) if now == ABSENT and aspect != "link" else Read("status", path, now, (), (aspect,))

    def _file(self, path: str, before: tuple[int, ...] | None) -> Read | None:
        existed = self._written_files.get(path)
        if existed is False or path in self._created:
            return self._created_file(path)
        now = file_stat(path)
        if path in self.digests_before:
            if path not in self._databases or before != now:
                return Read("file", path, self.digests_before[path])
            # The step only read the database.
            same = self.digests_before.pop(path)
            return Read("file", path, same, () if now is None or too_recent(now) else now)
        if before is None and now is None:
            return Read("absent", path)
        if path in self._databases and path.endswith(_WRITE_AHEAD) and now is None:
            return Read("absent", path)
        if now is None and before is not None and max(before[1:3]) > self._start_time - _CLOCK_TICK_NS:
            # A native writer or a child process created and removed the file while the step ran.
            return None
        if now is None and self._has_removed(path):
            return Read("absent", path)
        may_change = existed or path in self._databases
        if now is None or (before != now and not may_change):
            return Read("file", path, UNSTABLE)
        digest = file_digest(path)
        return None if digest is None else Read("file", path, digest, () if too_recent(now) else now)

    def _created_file(self, path: str) -> Read | None:
        """Return the read of a file that the step created because it was missing; None for a folder.

        The read holds if the file has the content that the step gave it, or is missing again: a reuse then restores the file. If it has another
        content, the step would find the file and use this content.
        """
        stat = file_stat(path)
        digest = file_digest(path) if stat is not None else None
        if stat is None or digest is None or path in self._databases:
            return None
        return Read("file", path, digest, () if too_recent(stat) else stat, (), (os.path.basename(path),))

    def _has_removed(self, path: str) -> bool:
        return any(path == removed or path.startswith(os.path.join(removed, "")) for removed in self._removed_paths)

    def _listing(self, path: str, names: list[str] | None, exclude: tuple[str, ...]) -> Read:
        if names is None:
            return Read("listing", path, UNSTABLE) if os.path.lexists(path) else Read("absent", path)
        if not os.path.isdir(path):
            return Read("listing", path, UNSTABLE)
        inside = [folder.rstrip(os.sep) for folder in exclude]
        created = (*inside, *self._created, *(file for file, existed in self._written_files.items() if not existed))
        own = {os.path.basename(item) for item in created if os.path.dirname(item) == path}
        counted = [name for name in names if name not in own]
        return Read("listing", path, checks.names_digest(counted), (), checks.recorded_names(counted), tuple(sorted(own)))

    def _created_paths(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return those of `paths` that the step itself created."""
        return tuple([path for path in paths if self._written_files.get(path) is False or path in self._created])

    def _from_environment(self) -> list[Read]:
        keyed = self._keyed or process_keyed
        reads = []
        try:
            for name, value in sorted((self._names or {}).items()):
                reads.append(Read("environment", name, name_digest(name, value, keyed)))
            if self._environment is not None:
                reads.append(
                    Read(
                        "environment",
                        ALL,
                        all_digest(self._environment, keyed, self._absent_variables),
                        (),
                        (),
                        self._absent_variables,
                    )
                )
        except StoreError:
            # Without the user's key, values of environment variables must not be stored, even as digests. So this read never holds.
            return [Read("environment", ALL, UNSTABLE)]
        return reads

    def _from_assets(self) -> list[Read]:
        return [Read("asset", key, version, (), tuple(where)) for (key, *where), version in sorted((self._assets or {}).items())]


class _Pause:
    """A context manager: while its block runs, a recorder notes nothing."""

    def __init__(self, recorder: ReadRecorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        self._recorder.is_paused = True

    def __exit__(self, *_: object) -> None:
        self._recorder.is_paused = False


def _local_file(name: str) -> str:
    """Return the path of the file of an imported module; empty if the module belongs to a library or has no file."""
    file = getattr(sys.modules.get(name), "__file__", None)
    is_local = type(file) is str and is_input_path(file) and not name.startswith(f"{OURS}.")
    return str(file) if is_local else ""


_OPTIONS = frozenset(("argv", "get_option", "rcParams", "options"))
"""Names of options and arguments. The recorder does not note a read of one of them by a module that is imported."""


def _names_options(name: str) -> bool:
    """Return True if the code of a local module, outside of its functions and classes, contains one of `_OPTIONS`."""
    loader = getattr(sys.modules[name].__spec__, "loader", None)
    try:
        return not _OPTIONS.isdisjoint(loader.get_code(name).co_names)  # type: ignore[union-attr]  # any exception means that there is no code
    except Exception:
        return False


def watched_import(name: str) -> ImportReads:
    """Import a module, and return what the import read of the state of the process. Output is discarded, and counts as reading state.

    Random numbers that the import draws are given back, because the step will draw them.
    """
    numpy = sys.modules.get("numpy.random")
    state, numpy_state = random.getstate(), numpy.get_state() if numpy is not None else None
    known = len(sys.modules)
    with ReadRecorder() as recorder, redirect_stdout(io.StringIO()) as output:
        import_module(name)
        reads_state = recorder.reads_state
    draws = random.getstate() != state
    random.setstate(state)
    if numpy is not None:
        draws = draws or repr(numpy.get_state()) != repr(numpy_state)
        numpy.set_state(numpy_state)
    reads_state = reads_state or bool(output.getvalue()) or any(map(_names_options, filter(_local_file, [*sys.modules][known:])))
    return ImportReads(reads_state, draws)
