# ruff: noqa: PTH100, PTH109, PTH202, PTH113, PTH117, PTH110, PTH111, PTH112, PTH118, PTH119, PTH120 - plain strings: an audit hook runs inside every open()
"""`ReadRecorder`: what one step read, noted while it runs and digested when it has ended.

What a step made is no input of it: a file that it created, a folder, a name that it set. A file that was there, that it read *and*
wrote, counts as the step left it: the value is reused as long as nobody else has touched the file since.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextvars import ContextVar, Token
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
from stepwell.kernel_runtime.versions.ownership import is_input_path

_UNBOUND: Any = object()

_current: ContextVar[ReadRecorder | None] = ContextVar("stepwell_reads", default=None)
threads: dict[int, ReadRecorder] = {}
"""By thread, the recorder of the step that started it."""
_WRITE_AHEAD = ("-wal", ".wal")
_MOST_BEFORE = 1 << 26
"""Bytes of a file up to which its content before a change is digested."""
_CLOCK_TICK_NS = 20_000_000
"""By how much the clock of files may be behind the other one."""


def value_digest(value: Any) -> str:
    """Return the digest of a variable's value as a recorded read has it; of a value without one, what no other value has."""
    return data_version(value) or UNSTABLE


def active() -> ReadRecorder | None:
    """Return the recorder of the step that this code runs in, or None."""
    recorder = _current.get()
    if recorder is None and threads:
        recorder = threads.get(threading.get_ident())
    return recorder if recorder is None or not recorder.looking else None


class ReadRecorder:
    """Records what the code inside the ``with`` block reads.

    Parameters
    ----------
    exclude
        Folders that do not count: the store's.
    keyed
        Digests values of the environment with the user's key; by default with one of this process.
    declared
        Files and patterns that the step says it reads, relative to the working directory.
    namespace
        The notebook's variables, in which texts of queries are looked up; None where there is no notebook.
    counted
        Returns the names that count already: inputs, and globals by the code version. The step itself may have changed their values since.
    before
        Whether a file that the step reads and changes counts as it was before: its change is an effect, which a hit applies.
    own
        Names that the step itself binds: what it looks up after that is no read of the notebook.
    looks_at_filters
        Whether the step's code names the filters of warnings: they are left as they are, and count.
    """

    # Defaults of the class: most steps read nothing, and a recorder is made for each.
    _noted = False
    looking = False
    """Whether the recorder itself is looking at the world now, which is no read of the step."""
    network: tuple[str, ...] = ()
    """Hosts that the step opened a connection to, in order."""
    unseen: tuple[str, ...] = ()
    """What it read in a way that cannot be checked later, each as ``reader: what``."""
    children: tuple[str, ...] = ()
    """Programs and processes that it started."""
    _result: tuple[Read, ...] = ()
    _token: Token[ReadRecorder | None] | None = None
    _seen: dict[str, tuple[int, ...] | None] | None = None
    _folders: dict[str, list[str] | None] | None = None
    _globs: dict[str, list[str]] | None = None
    _names: dict[str, str | None] | None = None
    _environment: dict[str, str] | None = None
    _without: tuple[str, ...] = ()
    _assets: dict[tuple[str, ...], str] | None = None
    _states: dict[str, str] | None = None
    _states_set: frozenset[str] = frozenset()
    _objects: dict[str, str] | None = None
    """What DuckDB's own connection held before the step used it."""
    _left: tuple[str, ...] = ()
    _databases: frozenset[str] = frozenset()
    _names_set: frozenset[str] = frozenset()
    _made: frozenset[str] = frozenset()
    _removed: frozenset[str] = frozenset()
    _lost: frozenset[str] = frozenset()
    """Files that were there before the step and that it removed."""
    _looks: dict[tuple[str, str], str] | None = None
    _tree: Tree | None = None
    """The project's files before the first child was started."""
    _asked: str = ""
    _started: int = 0
    _end_warnings: Callable[[], None]

    def __init__(
        self,
        exclude: tuple[Path, ...] = (),
        keyed: Keyed | None = None,
        declared: Iterable[str] = (),
        namespace: dict[str, Any] | None = None,
        counted: Callable[[], Collection[str]] = tuple,
        *,
        before: bool = False,
        own: Iterable[str] = (),
        looks_at_filters: bool = False,
    ) -> None:
        self._keeps_before = before
        self._looks_at_filters = looks_at_filters
        self._own_names = {name: namespace.get(name, _UNBOUND) for name in own} if namespace is not None else {}
        self.appended: frozenset[str] = frozenset()
        """Files to which the step appended before it wrote them in any other way."""
        self.before: dict[str, str] = {}
        """By path, the digest of a file before the step changed or removed it."""
        self._namespace = namespace
        self._counted = counted
        self._looked_up: dict[str, str] = {}
        self._exclude = exclude
        self._keyed = keyed
        self._declared = declared
        self._written: dict[str, bool] = {}

    def __enter__(self) -> Self:
        if self._declared:
            for path in self._declared:
                self.path_read(path)
        self._started = time.time_ns()
        self._token = _current.set(self)
        if self._looks_at_filters:
            self.state_read(WARNINGS)
            self.state_read(f"{WARNINGS} text")
        else:
            self._end_warnings = warnings_watched(self._warned, data_version)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            if not self._looks_at_filters:
                self._end_warnings()
            _current.reset(self._token)
            self._token = None
        self._note_children()
        if self._noted:
            self._result = tuple(self._digested())

    @property
    def reads(self) -> tuple[Read, ...]:
        """What was read, by kind and name; complete when the block has ended."""
        return self._result

    # -- what is noted while the step runs

    def opened(self, path: str, *, reads: bool, writes: bool, appends: bool = False) -> None:
        """Note that a file is about to be opened."""
        if reads:
            self._noted = True
            if self._seen is None:
                self._seen = {}
            if path not in self._seen and path not in self._written:
                self._seen[path] = file_stat(path)
        if writes and path not in self._written:
            stat = file_stat(path)
            self._written[path] = stat is not None
            if appends:
                self.appended |= {path}
            if stat is not None:
                self._note_before(path, stat[0])

    def made(self, path: str) -> None:
        """Note that the step is about to make a folder, unless it is there."""
        path = os.path.abspath(path)
        if not os.path.lexists(path):
            self._made |= {path}

    def removed(self, path: str) -> None:
        """Note that the step is about to remove a file or a folder with everything in it."""
        path = os.path.abspath(path)
        self._removed |= {path}
        if path not in self._written and path not in self._made and os.path.isfile(path):
            self._lost |= {path}
            self._note_before(path, os.path.getsize(path))
        elif os.path.isdir(path) and path not in self._made:
            inside = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
            self._lost |= {each for each in inside if each not in self._written}

    def _note_before(self, path: str, size: int) -> None:
        """Note the content of a file that a live cell is about to change: a hit may change a file only where it finds that again."""
        if self._keeps_before and size <= _MOST_BEFORE and is_input_path(path):
            with self.looks():
                self.before[path] = file_digest(path) or ""

    def changes(self) -> dict[str, bool]:
        """Return the paths that the step wrote, made or removed, each with whether it was there before."""
        found = {**dict.fromkeys(self._made, False), **self._written, **dict.fromkeys(self._lost, True)}
        for path in self._databases:
            if (
                not path.endswith(_WRITE_AHEAD)
                and path in (self._seen or {})
                and (self._seen or {})[path] != file_stat(path)
            ):
                found[path] = True
        return found

    @property
    def names_set(self) -> frozenset[str]:
        """Names of the environment that the step set or removed."""
        return self._names_set

    def excludes(self, path: str) -> bool:
        """Return True for a path in a folder that does not count: the store's."""
        return any(path == str(each) or path.startswith(os.path.join(each, "")) for each in self._exclude)

    def is_table(self, name: str) -> bool:
        """Return True if a variable of the notebook is something that SQL can read as a table."""
        value = self._namespace.get(name) if self._namespace is not None else None
        top = type(value).__module__.partition(".")[0]
        return top in {"pandas", "polars", "pyarrow", "numpy", "duckdb", "_duckdb"} or isinstance(value, dict)

    def looked_up(self, names: Iterable[str], value: Any = None) -> None:
        """Note that a library looked up names in the notebook's namespace, by a text.

        Parameters
        ----------
        value
            What was found, where that is known: another object than the notebook's is no read of the notebook.
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
                and name not in self._counted()
            ):
                with self.looks():
                    self._looked_up[name] = value_digest(space[name])
                self._noted = True

    def looked_at(self, path: str, aspect: str, fact: str) -> None:
        """Note what was learned of a path that was not opened."""
        self._noted = True
        if self._looks is None:
            self._looks = {}
        self._looks.setdefault((path, aspect), fact)

    def knows_look(self, path: str, aspect: str) -> bool:
        """Tell whether such a look was noted before."""
        return self._looks is not None and (path, aspect) in self._looks

    def listed(self, path: str) -> None:
        """Note that a folder is about to be listed."""
        path = os.path.abspath(path)
        self._noted = True
        if self._folders is None:
            self._folders = {}
        if path not in self._folders and is_input_path(os.path.join(path, "")):
            with self.looks():
                self._folders[path] = checks.folder_names(path)

    def path_read(self, path: str) -> None:
        """Note that a path is read, as a native reader takes it: a file, a folder with everything below it, or a pattern."""
        given = os.path.expanduser(path)
        path = os.path.abspath(given)
        if not is_input_path(path):
            return
        if not os.path.isabs(given):
            self.state_read(FOLDER)
        if os.path.isdir(path):
            path = checks.below(path)
        elif not checks.has_magic(path) or os.path.exists(path):
            self.opened(path, reads=True, writes=False)
            return
        self._noted = True
        if self._globs is None:
            self._globs = {}
        if path not in self._globs:
            with self.looks():
                found = self._globs[path] = checks.matches(path)
            for each in found:
                self.opened(each, reads=True, writes=False)

    def database_opened(self, path: str, log: str) -> None:
        """Note that a database file is about to be opened, for reading and perhaps for writing.

        Parameters
        ----------
        log
            What the name of its write-ahead log ends in.
        """
        path = os.path.abspath(path)
        there = os.path.exists(path)
        self.opened(path, reads=there, writes=not there)
        if there:
            self.opened(path + log, reads=True, writes=False)
            self._databases |= {path, path + log}

    def name_read(self, name: str, value: str | None) -> None:
        """Note that a name of the environment was read."""
        self._noted = True
        if self._names is None:
            self._names = {}
        self._names[name] = value

    def knows_name(self, name: str) -> bool:
        """Tell whether a name was noted, or set by the step itself, or is covered by a read of everything."""
        return (
            name in self._names_set
            or (self._names is not None and name in self._names)
            or self._environment is not None
        )

    def all_read(self, environment: dict[str, str]) -> None:
        """Note that the whole environment was read."""
        self._noted = True
        if self._environment is None:
            self._environment = environment
            self._without = tuple(sorted(self._names_set))

    def name_set(self, name: str) -> None:
        """Note that the step itself set or removed a name."""
        self._names_set |= {name}

    def state_read(self, name: str) -> None:
        """Note that the step reads options of a library, or the working directory: a name of `library_state`."""
        if name in self._states_set or (self._states is not None and name in self._states):
            return
        self._noted = True
        if self._states is None:
            self._states = {}
        with self.looks():
            self._states[name] = state_digest(name, data_version)

    def _warned(self, digest: str) -> None:
        """Note that a warning was issued: whether it is an error, filters decide."""
        if not self.looking:
            self._noted = True
            self._states = {WARNINGS: digest} | (self._states or {})

    def state_set(self, name: str) -> None:
        """Note that the step itself sets what it may read later."""
        self._states_set |= {name}

    def database_used(self, text: str, left: list[str]) -> None:
        """Note that a statement is about to be executed by DuckDB's own connection.

        Parameters
        ----------
        text
            The statement, or a name of what the connection holds.
        left
            What it leaves there that cannot be compared.
        """
        self._noted = True
        if self._objects is None:
            with self.looks():
                self._objects = queries.connection_objects()
            if queries.connection.settings:
                self.state_read(queries.IN_CONNECTION + queries.SETTINGS)
        if self._states is None:
            self._states = {}
        for name in queries.words(text):
            if name in self._objects:
                self._states.setdefault(queries.IN_CONNECTION + name, self._objects[name])
            elif name in queries.connection.temporary and not any(name in each for each in (*self._left, *left)):
                self._states[queries.IN_CONNECTION + name] = UNSTABLE
        self._left = (*self._left, *left)

    def database_changes(self) -> list[str]:
        """Return what the step has left in DuckDB's own connection."""
        before = self._objects
        if before is None:
            return []
        with self.looks():
            now = queries.connection_objects()
        changed = [f"table {name}" for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        return [f"duckdb's own connection ({each})" for each in dict.fromkeys((*changed, *self._left))]

    def asset_loaded(self, key: str, version: str, where: tuple[str, ...]) -> None:
        """Note that the value of an asset was loaded."""
        self._noted = True
        if self._assets is None:
            self._assets = {}
        self._assets.setdefault((key, *where), version)

    def host_asked(self, host: str) -> None:
        """Note that the address of a host was asked for."""
        self._asked = host

    def connected(self, address: str) -> None:
        """Note that a connection to an internet address is opened: to the host whose address was asked for last."""
        host = self._asked or address
        if host not in self.network:
            self.network = (*self.network, host)

    def not_seen(self, reader: str, what: str) -> None:
        """Note that a native reader read what cannot be checked later."""
        line = f"{reader}: {what}"
        if line not in self.unseen:
            self.unseen = (*self.unseen, line)

    def location_read(self, reader: str, location: str, folder: str = "") -> None:
        """Note that a native reader reads a path or an address.

        Parameters
        ----------
        reader
            The reader's name, for the notice that an address is not checked.
        folder
            The folder in which a relative path is.
        """
        if "://" in location and not location.startswith("file://"):
            parts = urlsplit(location)
            # A signed address carries a secret in what follows.
            self.not_seen(reader, f"{parts.scheme}://{parts.hostname or ''}")
        else:
            self.path_read(os.path.join(folder, location.removeprefix("file://")))

    def child_started(self, name: str) -> None:
        """Note that a program or a process is about to be started."""
        if name not in self.children:
            self.children = (*self.children, name)
        if self._tree is None:
            with self.looks():
                self._tree = Tree(self._roots(), digests=self._keeps_before)

    def _roots(self) -> list[str]:
        """Return the folders in which files of children are looked for: the working directory, and the project's, where the store is."""
        found = [os.getcwd(), *[os.path.dirname(os.path.abspath(each)) for each in self._exclude]]
        return [
            each
            for each in dict.fromkeys(map(os.path.realpath, found))
            if each not in (os.sep, os.path.realpath(os.path.expanduser("~")))
            and not any(each.startswith(os.path.join(other, "")) for other in map(os.path.realpath, found))
        ]

    def _note_children(self) -> None:
        """Note what children wrote, made and removed: what differs now and was not changed by the step itself."""
        before = self._tree
        if before is None:
            return
        with self.looks():
            now = Tree(before.roots)
        for path in now.folders - before.folders:
            self._made |= {path}
        for path, stat in now.files.items():
            if path in self._written or before.files.get(path) == stat or not is_input_path(path):
                continue
            if path in before.files and path in (self._seen or {}) and path not in before.digests:
                # The step has read it, and who changed it then is not known.
                continue
            self._written[path] = path in before.files
            if path in before.digests:
                self.before[path] = before.digests[path]
        gone = {path for path in before.files.keys() - now.files.keys() if not os.path.lexists(path)}
        for path in gone - self._removed:
            self._removed |= {path}
            if path not in self._written:
                self._lost |= {path}
                if path in before.digests:
                    self.before[path] = before.digests[path]

    def looks(self) -> _Looking:
        """Return a block in which nothing is noted."""
        return _Looking(self)

    # -- when it has ended

    def _digested(self) -> list[Read]:
        exclude = tuple(
            os.path.join(form, "") for path in self._exclude for form in {os.path.abspath(path), os.path.realpath(path)}
        )
        made = tuple(os.path.join(path, "") for path in self._made)
        found: list[Read] = []

        def ours(path: str) -> bool:
            if made and path.startswith(made):
                return True
            return bool(exclude) and (path.startswith(exclude) or os.path.realpath(path).startswith(exclude))

        for path, before in sorted((self._seen or {}).items()):
            read = None if ours(path) else self._file(path, before)
            if read is not None:
                found.append(read)
        for path, names in sorted((self._folders or {}).items()):
            if not ours(os.path.join(path, "")):
                found.append(self._listing(path, names, exclude))
        for pattern, paths in sorted((self._globs or {}).items()):
            own = self._own(dict.fromkeys((*paths, *checks.matches(pattern))))
            found.append(Read("glob", pattern, checks.names_digest(paths, own), (), checks.kept(paths), own))
        files = [read.name for read in found if read.kind in {"file", "absent", "listing"}]
        for (path, aspect), told in sorted((self._looks or {}).items()):
            read = None if ours(os.path.join(path, "")) else self._look(path, aspect, told)
            # What was opened, missed or listed is known by more than its kind or size, and so are the folders above it.
            if read is None or (aspect in {"kind", "size"} and (path in files or path in (self._seen or ()))):
                continue
            if read.digest != "folder" or not any(name.startswith(os.path.join(path, "")) for name in files):
                found.append(read)
        found += [Read("state", name, digest) for name, digest in sorted((self._states or {}).items())]
        found += [Read("name", name, digest) for name, digest in sorted(self._looked_up.items())]
        return [*found, *self._from_environment(), *self._from_assets()]

    def _look(self, path: str, aspect: str, told: str) -> Read | None:
        if self._written.get(path) is False or path in self._made:
            return None
        now = status(path, aspect)
        if now != told:
            if path not in self._written and not self._has_removed(path):
                if told == ABSENT and self.children:
                    # Made by a program that the step has run.
                    return None
                return Read("status", path, UNSTABLE, (), (aspect,))
            if told == ABSENT:
                return None
        return Read("absent", path) if now == ABSENT and aspect != "link" else Read("status", path, now, (), (aspect,))

    def _file(self, path: str, before: tuple[int, ...] | None) -> Read | None:
        existed = self._written.get(path)
        if existed is False or path in self._made:
            return None
        if path in self.before:
            return Read("file", path, self.before[path])
        now = file_stat(path)
        if before is None and now is None:
            return Read("absent", path)
        if path in self._databases and path.endswith(_WRITE_AHEAD) and now is None:
            return Read("absent", path)
        if now is None and before is not None and max(before[1:3]) > self._started - _CLOCK_TICK_NS:
            # Made while the step ran, by a native writer or a child of its, and removed again.
            return None
        if now is None and self._has_removed(path):
            return Read("absent", path)
        as_left = existed or path in self._databases
        if now is None or (before != now and not as_left):
            return Read("file", path, UNSTABLE)
        digest = file_digest(path)
        return None if digest is None else Read("file", path, digest, () if too_recent(now) else now)

    def _has_removed(self, path: str) -> bool:
        return any(path == each or path.startswith(os.path.join(each, "")) for each in self._removed)

    def _listing(self, path: str, names: list[str] | None, exclude: tuple[str, ...]) -> Read:
        if names is None:
            return Read("listing", path, UNSTABLE) if os.path.lexists(path) else Read("absent", path)
        if not os.path.isdir(path):
            return Read("listing", path, UNSTABLE)
        inside = [folder.rstrip(os.sep) for folder in exclude]
        mine = (*inside, *self._made, *(each for each, existed in self._written.items() if not existed))
        own = {os.path.basename(each) for each in mine if os.path.dirname(each) == path}
        left = [name for name in names if name not in own]
        return Read("listing", path, checks.names_digest(left), (), checks.kept(left), tuple(sorted(own)))

    def _own(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return those of some paths that the step itself made."""
        return tuple([path for path in paths if self._written.get(path) is False or path in self._made])

    def _from_environment(self) -> list[Read]:
        keyed = self._keyed or process_keyed
        found = []
        try:
            for name, value in sorted((self._names or {}).items()):
                found.append(Read("environment", name, name_digest(name, value, keyed)))
            if self._environment is not None:
                found.append(
                    Read("environment", ALL, all_digest(self._environment, keyed, self._without), (), (), self._without)
                )
        except StoreError:
            # Without the user's key nothing may be kept of a value, so the value of the step is not reused.
            return [Read("environment", ALL, UNSTABLE)]
        return found

    def _from_assets(self) -> list[Read]:
        return [
            Read("asset", key, version, (), tuple(where))
            for (key, *where), version in sorted((self._assets or {}).items())
        ]


class _Looking:
    """The time in which the recorder looks at the world for itself."""

    def __init__(self, recorder: ReadRecorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        self._recorder.looking = True

    def __exit__(self, *_: object) -> None:
        self._recorder.looking = False
