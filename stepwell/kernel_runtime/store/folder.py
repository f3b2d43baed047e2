"""The store directory, which is examined before it is used and is accessed through an open descriptor.

A store can come from another person's archive or repository. If the store contained a link, Stepwell could write, rename or delete files
outside the store. If it contained a pipe or a device, reading that entry could block forever. Stepwell never creates links, pipes or
devices in a store, so `Folder.examine` refuses a store that contains one. A `Folder` opens its directory only in `examine`, so every use of
a store begins with the examination.

The examination covers every entry of the store directory, and every entry of the folders `FOLDERS` in it. A folder that has not changed
since its last examination is not examined again. Deeper entries are checked when they are used, because a store can contain 100,000 value
files. The other operations of `Folder` use names relative to the open descriptor of the store directory, follow no link (``O_NOFOLLOW``),
never wait for a pipe (``O_NONBLOCK``), and check each file after opening it. So a link that is planted after the examination is not
followed. On systems that lack these features of ``os.open`` (Windows), each component of a path is checked just before the path is used.

DuckDB opens files only by path. On Linux, `Folder.database` gives DuckDB a path that begins with ``/proc/self/fd/N``, where N is an open
descriptor of a folder. So DuckDB uses the folder that was examined, even if that folder has been renamed.

A store is shared by several users if the store directory is writable for its group or has the setgid bit. Files in a shared store get the
group and mode of the store directory, regardless of the umask (as with git's ``core.sharedRepository``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

from stepwell.kernel_runtime.errors import UntrustedStoreError
from stepwell.kernel_runtime.records.keys import new_id

FOLDERS = ("objects", "runs", "tmp", "claims", "writers", "damaged")
"""The folders in a store directory. Only ``objects`` and ``tmp`` contain further folders."""
CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory holds a Stepwell store: what notebooks computed. It can be computed again.\n"
    "# For information about cache directory tags see https://bford.info/cachedir/\n"
)
RESERVE = "reserve"
"""The name of the file that reserves disk space. It is deleted when the disk is full, so that ``gc`` has space to work (see the
module `trouble`)."""
_WRITTEN_IN_PLACE = ("catalog.duckdb", "catalog.duckdb.wal", "catalog.lock", "want.lock", "catalog.seal", RESERVE)
"""Files that Stepwell changes in place. If such a file has a hard link outside the store, the store is refused, because Stepwell would also
change the file outside."""
_ANCHORED = os.open in os.supports_dir_fd and os.scandir in os.supports_fd and hasattr(os, "O_NOFOLLOW")
_CLOSED = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _CLOSED
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _CLOSED
_DEEPEST = 64
"""Maximum depth of nested folders in a store. Stepwell, and the libraries that use `Folder.scratch`, need only a few levels."""
_PIECE = 4 << 20
_PROC = "/proc/self/fd"
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Folder:
    """Access to the files of one store directory. Every method may be called from any thread.

    A method's argument ``name`` is the path of a file or folder relative to the store directory, with ``/`` as the separator.

    Parameters
    ----------
    path
        The absolute path of the store directory.
    follow
        True if ``path`` may be a symbolic link to the store directory. Pass True only if the user named this path.

    Raises
    ------
    UntrustedStoreError
        If a method finds an entry that Stepwell never creates in a store, for example a link or a pipe. `is_file` returns False instead.
    OSError
        If the operating system reports an error to a method. Methods that return True or False may return False instead.
    """

    def __init__(self, path: Path, *, follow: bool = True) -> None:
        self.path = path
        self._follow = follow
        self._mutex = threading.RLock()
        self._descriptor = -1
        self._outdated: list[int] = []
        """Descriptors of earlier directories at ``path``. They stay open because another thread may still be using one of them."""
        self._status_of_root: os.stat_result | None = None
        self._modes: tuple[int, int] | None = None
        self._checked_files: dict[str, tuple[int, int, int]] = {}
        _folders.add(self)

    def __repr__(self) -> str:
        return f"Folder({str(self.path)!r})"

    def __del__(self) -> None:
        for descriptor in (self._descriptor, *self._outdated):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    # -- the examination -------------------------------------------------------------------------------------------------

    def examine(self, *, create: bool = False) -> None:
        """Open the store directory, and raise an error if an entry in it could lead Stepwell to files outside the store.

        Parameters
        ----------
        create
            True to create the store directory, and the files and folders that every store contains, if they are missing.

        Raises
        ------
        UntrustedStoreError
            If the examination finds a link, a pipe, a device or a socket; an entry directly in the store directory whose owner and group both
            differ from those of the store directory; or a file that Stepwell changes in place and that has a hard link outside the store. The
            message names the entry.
        FileNotFoundError
            If the store directory does not exist and ``create`` is false.
        """
        with self._mutex:
            try:
                self._reopen()
            except FileNotFoundError:
                if not create:
                    raise
                self._make()
                self._reopen()
            for name, status in list(self._entries("")):
                self._check(name, status)
                if stat.S_ISDIR(status.st_mode):
                    if name in FOLDERS:
                        # If this user has no permission to list the folder, its entries are checked when they are used.
                        with contextlib.suppress(PermissionError):
                            self._examine_below(name, status)
                elif status.st_nlink > 1 and name in _WRITTEN_IN_PLACE:
                    self._check_names(name, status)
            if create:
                self._complete()

    def _examine_below(self, folder: str, status: os.stat_result) -> None:
        """Check the type of each entry of ``folder``. Do nothing if the folder has not changed since the last check.

        ``status`` is the present status of the folder.
        """
        state = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        if self._checked_files.get(folder) == state:
            return
        with self._folder_descriptor(folder) as descriptor, os.scandir(self._place(descriptor, folder)) as entries:
            for entry in entries:
                # The listing of a folder includes the type of each entry, so a regular file needs no further system call.
                if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                    name = f"{folder}/{entry.name}"
                    self._check(name, self._status(descriptor, name, entry.name))
        self._checked_files[folder] = state

    def _check(self, name: str, status: os.stat_result) -> None:
        """Raise an error if the entry ``name`` is neither a file nor a folder, or if both its owner and its group differ from the store's.

        ``status`` is the present status of the entry.
        """
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise self._untrusted(name, _KINDS.get(stat.S_IFMT(status.st_mode), "a special file"))
        root = self._status_of_root
        if root is not None and status.st_uid != root.st_uid and status.st_gid != root.st_gid:
            raise self._untrusted(
                name,
                f"an entry of another user ({user_name(status.st_uid)}, group {group_name(status.st_gid)})",
                where=f"the store belongs to {user_name(root.st_uid)}, group {group_name(root.st_gid)}",
                remedy=f"if you trust this entry, run chgrp {group_name(root.st_gid)} {self.path / name}; otherwise remove the entry",
            )

    def _check_names(self, name: str, status: os.stat_result) -> None:
        """Raise an error if the file ``name`` has a hard link outside the store.

        A hard link inside the store is allowed, because ``doctor --rebuild`` creates one for the catalog.
        """
        inside = sum(
            os.path.samestat(status, other)
            for folder in ("", "tmp")
            if not folder or self.exists(folder)
            for _, other in self._entries(folder)
        )
        if inside < status.st_nlink:
            path = self.path / name
            raise self._untrusted(
                name,
                "a file that has another name outside the store (a hard link)",
                remedy=f"replace the file with a copy: cp -p {path} {path}.new && mv {path}.new {path}",
            )

    def _untrusted(self, name: str, kind: str, *, where: str = "", remedy: str = "") -> UntrustedStoreError:
        return UntrustedStoreError(
            f"the store {self.path} contains {kind}: {name!r}",
            where=where or "through this entry, Stepwell could read or change files outside the store",
            remedy=remedy
            or f"remove {self.path / name}; to keep a store on another disk, name its directory with --store DIR or STEPWELL_STORE=DIR",
        )

    # -- the directory itself ----------------------------------------------------------------------------------------------

    def _reopen(self) -> None:
        """Open the directory at `path`, unless it is the directory that is already open."""
        try:
            current = self.path.stat(follow_symlinks=self._follow)
        except FileNotFoundError:
            self._close()
            if self._follow and self.path.is_symlink():
                raise UntrustedStoreError(
                    f"the store {self.path} is a link to a directory that does not exist",
                    remedy=f"create the directory {os.path.realpath(self.path)}, or remove the link",
                ) from None
            raise
        if stat.S_ISLNK(current.st_mode):
            raise UntrustedStoreError(
                f"the store {self.path} is a link, and Stepwell follows a link only to a store that you name",
                where=f"the link leads to {os.path.realpath(self.path)}",
                remedy="if you made the link, name the store with --store DIR, store='DIR' or STEPWELL_STORE=DIR; otherwise remove the link",
            )
        if self._descriptor >= 0 and self._status_of_root is not None and os.path.samestat(current, self._status_of_root):
            status = current
        else:
            self._close()
            if not stat.S_ISDIR(current.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(self.path))
            if _ANCHORED:
                self._descriptor = os.open(self.path, _DIRECTORY if self._follow else _DIRECTORY | os.O_NOFOLLOW)
                status = os.fstat(self._descriptor)
            else:
                status = current
        self._status_of_root = status
        self._modes = _shared_modes(status)

    def _close(self) -> None:
        if self._descriptor >= 0:
            self._outdated.append(self._descriptor)
        self._descriptor, self._status_of_root = -1, None
        self._checked_files.clear()

    def _make(self) -> None:
        """Create the store directory. If its parent folder is shared with a group (setgid and writable), the directory is shared, too."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        above = self.path.parent.stat()
        with contextlib.suppress(FileExistsError):
            self.path.mkdir()
            mode = self.path.stat().st_mode
            if above.st_mode & stat.S_ISGID and above.st_mode & stat.S_IWGRP:
                self.path.chmod(stat.S_IMODE(mode) | stat.S_ISGID | above.st_mode & stat.S_IRWXG)

    def _complete(self) -> None:
        """Create the files and folders that every store contains, if they are missing."""
        for name, text in ((".gitignore", "*\n"), ("CACHEDIR.TAG", CACHEDIR_TAG)):
            with contextlib.suppress(FileExistsError):
                self.write(name, text.encode())
        for name in ("objects", "runs", "tmp", "claims"):
            self.mkdir(name)

    def is_in_place(self) -> bool:
        """Return False if the directory that was opened has been renamed, removed or replaced, so that `path` does not refer to it."""
        status = self._status_of_root
        try:
            return status is not None and os.path.samestat(self.path.stat(follow_symlinks=self._follow), status)
        except OSError:
            return False

    @property
    def owner(self) -> os.stat_result:
        """The ``os.stat_result`` of the store directory from its last examination."""
        self._root()
        assert self._status_of_root is not None
        return self._status_of_root

    @property
    def is_shared(self) -> bool:
        """True if the store is shared with a group: new files get the group and mode of the store directory."""
        self._root()
        return self._modes is not None

    def obstacle(self, names: Iterable[str]) -> OSError | None:
        """Return the error that writing to the store would raise; None if this user can write. The check itself writes nothing.

        Parameters
        ----------
        names
            Names of files and folders in the store that must be writable, too, if they exist.
        """
        directory = self.owner
        if sys.platform == "win32":
            return None
        if os.fstatvfs(self._root()).f_flag & os.ST_RDONLY:
            return OSError(errno.EROFS, os.strerror(errno.EROFS), str(self.path))
        for name in (".", *names):
            if not self._is_writable(name) and (name == "." or self.exists(name)):
                return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path / name))
        user, member = os.geteuid(), directory.st_gid == os.getegid() or directory.st_gid in os.getgroups()
        if (
            user not in (0, directory.st_uid)
            and not member
            and not (directory.st_mode & stat.S_ISGID or sys.platform == "darwin")
        ):
            text = f"files that you create would belong neither to {user_name(directory.st_uid)} nor to the group {group_name(directory.st_gid)}"
            return PermissionError(errno.EPERM, text, str(self.path))
        return None

    def _is_writable(self, name: str) -> bool:
        mode = os.R_OK | os.W_OK | (os.X_OK if name == "." else 0)
        effective = os.access in os.supports_effective_ids
        if not _ANCHORED or os.access not in os.supports_dir_fd:
            return os.access(self.path / name, mode, effective_ids=effective)
        return os.access(name, mode, dir_fd=self._root(), effective_ids=effective)

    # -- operations --------------------------------------------------------------------------------------------------------

    def stat(self, name: str) -> os.stat_result:
        """Return the ``os.stat_result`` of a file or folder in the store."""
        with self._parent(name) as (descriptor, leaf):
            status = self._status(descriptor, name, leaf)
        self._check(name, status)
        return status

    def glance(self, name: str) -> os.stat_result:
        """Return the ``os.stat_result`` of a file with a single system call, which is fast enough to check many files.

        Unlike `stat`, this follows symbolic links in all components of ``name`` except the last one.
        """
        status = os.lstat(name, dir_fd=self._root()) if _ANCHORED else os.lstat(self.path / name)
        self._check(name, status)
        return status

    def exists(self, name: str) -> bool:
        """Return True if the store contains a file or folder ``name``."""
        try:
            self.stat(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Open a file and return its descriptor; ``flags`` are those of `os.open`.

        In a shared store, a file that this call creates gets the group and mode of the store directory.
        """
        with self._parent(name) as (descriptor, leaf):
            if flags & os.O_EXCL:
                return self._created(descriptor, name, leaf, flags)
            try:
                # The entry is checked before it is opened, because opening a device can have effects.
                self._check(name, self._status(descriptor, name, leaf))
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
                return self._created(descriptor, name, leaf, flags)
            opened = self._open_leaf(descriptor, name, leaf, flags & ~os.O_CREAT | _SAFE)
        try:
            self._check_file(name, os.fstat(opened), will_be_written=bool(flags & (os.O_WRONLY | os.O_RDWR)))
        except BaseException:
            os.close(opened)
            raise
        return opened

    def _created(self, descriptor: int | None, name: str, leaf: str, flags: int) -> int:
        try:
            opened = os.open(leaf, flags | os.O_EXCL | _SAFE, 0o666, dir_fd=descriptor)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            # Another process has just created the file.
            opened = self._open_leaf(descriptor, name, leaf, flags & ~os.O_CREAT | _SAFE)
        try:
            self._give(opened)
            self._check_file(name, os.fstat(opened))
        except BaseException:
            os.close(opened)
            raise
        return opened

    def _open_leaf(self, descriptor: int | None, name: str, leaf: str, flags: int) -> int:
        try:
            return os.open(leaf, flags, dir_fd=descriptor)
        except OSError:
            # If the entry is a link, a socket or a pipe, the system's error does not say so, but `_check` does.
            with contextlib.suppress(FileNotFoundError):
                self._check(name, self._status(descriptor, name, leaf))
            raise

    def _check_file(self, name: str, status: os.stat_result, *, will_be_written: bool = False) -> None:
        self._check(name, status)
        if not stat.S_ISREG(status.st_mode):
            raise self._untrusted(name, "a folder where a file is expected")
        if status.st_nlink > 1 and (will_be_written or name in _WRITTEN_IN_PLACE):
            self._check_names(name, status)

    def read(self, name: str, max_bytes: int = -1) -> bytes:
        """Return the contents of a file; if ``max_bytes`` is not negative, only its first ``max_bytes`` bytes."""
        descriptor = self.open(name)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return file.read(max_bytes)

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Create a file that contains ``data``; raise `FileExistsError` if the file exists."""
        descriptor = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    def copy(self, old: str, new: str) -> None:
        """Copy the contents of the file ``old`` to a new file ``new``; raise `FileExistsError` if ``new`` exists."""
        with os.fdopen(self.open(old), "rb", buffering=0) as source:
            created = self.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(created, "wb", buffering=0) as target:
                shutil.copyfileobj(source, target, _PIECE)

    def mkdir(self, name: str) -> None:
        """Create a folder in the store, unless it exists."""
        with self._parent(name) as (descriptor, leaf):
            try:
                os.mkdir(leaf, dir_fd=descriptor)
            except FileExistsError:
                status = self._status(descriptor, name, leaf)
                self._check(name, status)
                if not stat.S_ISDIR(status.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(self.path / name)) from None
                return
            if _ANCHORED:
                created = os.open(leaf, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                try:
                    self._give(created, folder=True)
                finally:
                    os.close(created)

    def rename(self, old: str, new: str) -> None:
        """Rename the file ``old`` to ``new``. An existing file ``new`` is replaced."""
        with self._parent(old) as (source, was), self._parent(new) as (target, name):
            self._check(old, self._status(source, old, was))
            os.replace(was, name, src_dir_fd=source, dst_dir_fd=target)

    def link(self, old: str, new: str) -> None:
        """Create ``new`` as a hard link to the file ``old``."""
        with self._parent(old) as (source, was), self._parent(new) as (target, name):
            self._check_file(old, self._status(source, old, was))
            os.link(was, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def unlink(self, name: str, *, missing_ok: bool = False) -> None:
        """Remove a file from the store; if ``missing_ok`` is true, do nothing if the file does not exist."""
        try:
            with self._parent(name) as (descriptor, leaf):
                os.unlink(leaf, dir_fd=descriptor)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self, name: str) -> None:
        """Remove a folder of the store with its contents."""
        for entry, status in list(self._entries(name)):
            below = f"{name}/{entry}"
            if stat.S_ISDIR(status.st_mode):
                self.rmtree(below)
            else:
                self.unlink(below)
        with self._parent(name) as (descriptor, leaf):
            os.rmdir(leaf, dir_fd=descriptor)

    def entries(self, name: str) -> list[tuple[str, os.stat_result]]:
        """Return the name and ``os.stat_result`` of each entry of the folder ``name``, sorted by name.

        An empty ``name`` means the store directory. The list is empty if the folder does not exist. Raise `UntrustedStoreError` if an entry
        has a type or an owner that the entries of a store never have.
        """
        try:
            entries = sorted(self._entries(name), key=lambda entry: entry[0])
        except FileNotFoundError:
            return []
        for entry, status in entries:
            self._check(f"{name}/{entry}" if name else entry, status)
        return entries

    def names(self, name: str) -> list[str]:
        """Return the names of the entries of the folder ``name``, unsorted; an empty list if the folder does not exist.

        Unlike `entries`, this does not check the types and owners of the entries.
        """
        try:
            with self._folder_descriptor(name) as descriptor:
                return os.listdir(self._place(descriptor, name))  # noqa: PTH208 - of a descriptor
        except FileNotFoundError:
            return []

    def is_file(self, name: str, descriptor: int) -> bool:
        """Return True if ``name`` still refers to the file that is open as ``descriptor``; False if it was renamed, removed or replaced."""
        try:
            return os.path.samestat(self.stat(name), os.fstat(descriptor))
        except (OSError, UntrustedStoreError):
            return False

    @staticmethod
    def is_open(status: os.stat_result) -> bool:
        """Return True if the file that ``status`` describes is open in this process, or if the system does not list open files."""
        try:
            descriptors = os.listdir(_PROC)  # noqa: PTH208 - called at each attach
        except OSError:
            return True
        for descriptor in descriptors:
            # The listing includes the descriptor that `listdir` used, which is already closed.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(int(descriptor)), status):
                    return True
        return False

    def sync(self, name: str) -> None:
        """Flush the contents of a file to the disk."""
        if sys.platform == "win32":
            return
        descriptor = self.open(name, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def give(self, name: str, *, like: str = "") -> None:
        """Set the owner, group and mode of a file that a library, such as DuckDB, created in the store.

        Parameters
        ----------
        name
            The file. In a shared store, it gets the group and mode that `open` gives to new files.
        like
            The name of another file in the store, whose owner, group and mode the file gets instead; empty to use no other file.
        """
        if not (like or self._modes is not None or self._is_root()):
            return
        descriptor = self.open(name)
        try:
            self._give(descriptor)
            if like and sys.platform != "win32":
                model, current = self.stat(like), os.fstat(descriptor)
                if (model.st_uid, model.st_gid) != (current.st_uid, current.st_gid):
                    os.fchown(descriptor, model.st_uid, model.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(model.st_mode))
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def database(self, name: str) -> Iterator[str]:
        """Yield an absolute path by which DuckDB can attach the file ``name``. The path is valid only inside the ``with`` block.

        The file may be missing, because DuckDB then creates it.
        """
        with self._parent(name) as (descriptor, leaf):
            with contextlib.suppress(FileNotFoundError):
                self._check_file(name, self._status(descriptor, name, leaf))
            yield f"{_PROC}/{descriptor}/{leaf}" if _has_proc(descriptor) else str(self.path / name)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield the path of a new folder below ``tmp/`` in which a library can write files; remove the folder at the end of the block."""
        name = f"tmp/{new_id()}.scratch"
        self.mkdir("tmp")
        self.mkdir(name)
        try:
            with self._folder_descriptor(name) as descriptor:
                yield Path(f"{_PROC}/{descriptor}") if _has_proc(descriptor) else self.path / name
        finally:
            with contextlib.suppress(OSError):
                self.rmtree(name)

    # -- implementation ----------------------------------------------------------------------------------------------------

    def _root(self) -> int:
        if self._status_of_root is None:
            self.examine()
        return self._descriptor

    @contextlib.contextmanager
    def _parent(self, name: str) -> Iterator[tuple[int | None, str]]:
        """Yield the descriptor of the folder that contains the entry ``name``, and the last component of ``name``.

        On Windows, yield None and the absolute path of the entry.
        """
        root = self._root()
        above, _, leaf = name.rpartition("/")
        if not _ANCHORED:
            self._check_parts(above)
            yield None, str(self.path / name)
        elif not above:
            yield root, leaf
        else:
            with self._folder_descriptor(above) as descriptor:
                yield descriptor, leaf

    @contextlib.contextmanager
    def _folder_descriptor(self, folder: str) -> Iterator[int | None]:
        """Open a folder of the store without following links, and yield its descriptor; yield None on Windows.

        An empty ``folder`` means the store directory.
        """
        descriptor: int | None = self._root()
        if not _ANCHORED:
            self._check_parts(folder)
            yield None
            return
        if folder.count("/") > _DEEPEST:
            raise OSError(errno.ELOOP, "The folders are nested too deeply", str(self.path / folder))
        opened: list[int] = []
        try:
            entered = ""
            # The store directory is opened a second time, because a listing would move the position of `self._descriptor`.
            for part in folder.split("/") if folder else (".",):
                entered = f"{entered}/{part}" if entered else part
                descriptor = self._open_leaf(descriptor, entered, part, _DIRECTORY | os.O_NOFOLLOW)
                opened.append(descriptor)
                if entered != part:
                    # `examine` has checked the folders directly in the store directory.
                    self._check(entered, os.fstat(descriptor))
            yield descriptor
        finally:
            for opened_descriptor in opened:
                os.close(opened_descriptor)

    def _check_parts(self, folder: str) -> None:
        parts = folder.split("/") if folder else []
        for index in range(len(parts)):
            name = "/".join(parts[: index + 1])
            status = os.lstat(self.path / name)
            self._check(name, status)
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(self.path / name))

    def _place(self, descriptor: int | None, folder: str) -> int | str:
        return str(self.path / folder) if descriptor is None else descriptor

    def _status(self, descriptor: int | None, name: str, leaf: str) -> os.stat_result:
        return os.lstat(self.path / name) if descriptor is None else os.lstat(leaf, dir_fd=descriptor)

    def _entries(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        with self._folder_descriptor(folder) as descriptor, os.scandir(self._place(descriptor, folder)) as entries:
            for entry in entries:
                # Another process may have removed the entry.
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)

    def _is_root(self) -> bool:
        return sys.platform != "win32" and os.geteuid() == 0 and self.owner.st_uid != 0

    def _give(self, descriptor: int, *, folder: bool = False) -> None:
        """In a shared store, give a new file or folder the group and mode of the store directory.

        In any store, if this process runs as root but root does not own the store directory, the new file or folder gets the owner and group of
        the store directory.
        """
        if sys.platform == "win32":
            return
        directory, root = self.owner, self._is_root()
        if self._modes is None and not root:
            return
        created = os.fstat(descriptor)
        if root or created.st_gid != directory.st_gid:
            os.fchown(descriptor, directory.st_uid if root else -1, directory.st_gid)
        if self._modes is not None and stat.S_IMODE(created.st_mode) != self._modes[folder]:
            os.fchmod(descriptor, self._modes[folder])


_folders: weakref.WeakSet[Folder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for folder in list(_folders):
        # In the parent, another thread may hold the lock at the fork, and nobody would release it in the child.
        folder._mutex = threading.RLock()  # noqa: SLF001 - of this very file


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _shared_modes(directory: os.stat_result) -> tuple[int, int] | None:
    """Return the mode of new files and the mode of new folders in a shared store directory; None if it is not shared."""
    if sys.platform == "win32" or not directory.st_mode & (stat.S_IWGRP | stat.S_ISGID):
        return None
    mode = stat.S_IMODE(directory.st_mode)
    return mode & 0o666, mode


def _has_proc(descriptor: int | None) -> bool:
    return descriptor is not None and os.path.isdir(f"{_PROC}/{descriptor}")  # noqa: PTH112 - called at each attach


def user_name(number: int) -> str:
    """Return the name of the user with the uid ``number``; the number as a string if the system knows no name."""
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return str(number)


def group_name(number: int) -> str:
    """Return the name of the group with the gid ``number``; the number as a string if the system knows no name."""
    try:
        import grp

        return grp.getgrgid(number).gr_name
    except (ImportError, KeyError):
        return str(number)
