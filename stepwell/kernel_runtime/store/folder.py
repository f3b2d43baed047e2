"""The store's directory, which is examined before use and accessed through an open descriptor.

A store can come from another person's archive or repository. A link in it would make Stepwell write, rename or delete files elsewhere; a
pipe or a device would block a reader. Stepwell never creates these, so `Folder.examine` refuses them. A `Folder` opens its directory only
in `examine`, so every use of a store begins with the examination.

The examination covers every entry of the directory, and the entries of its folders if the folder has changed. Deeper entries are checked
when they are used, because a store can contain 100,000 value files. All other operations of `Folder` enforce the same rules: they are
relative to the descriptor of the directory, follow no link (``O_NOFOLLOW``), never wait for a pipe (``O_NONBLOCK``), and check the file
that they have opened. So a link that is planted after the examination is not followed. On systems without these calls (Windows),
each part of a path is checked just before use.

DuckDB opens files only by path. `Folder.database` passes it a path below ``/proc/self/fd``, which DuckDB resolves when it attaches the
file. So DuckDB uses the directory that was examined, even if that directory has been renamed.

If several users share a store, its files get the group and mode of the directory, regardless of the umask (as with git's
``core.sharedRepository``). A store is shared if its directory is writable for its group or has the setgid bit.
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
"""The folders of a store. Only `objects` and `tmp` contain further folders."""
CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory holds a Stepwell store: what notebooks computed. It can be computed again.\n"
    "# For information about cache directory tags see https://bford.info/cachedir/\n"
)
RESERVE = "reserve"
"""The name of the file that reserves disk space for a full disk (`trouble`)."""
_WRITTEN_IN_PLACE = ("catalog.duckdb", "catalog.duckdb.wal", "catalog.lock", "want.lock", "catalog.seal", RESERVE)
"""Files that are changed in place, so that a hard link elsewhere to one of these files would change, too."""
_ANCHORED = os.open in os.supports_dir_fd and os.scandir in os.supports_fd and hasattr(os, "O_NOFOLLOW")
_CLOSED = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _CLOSED
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _CLOSED
_DEEPEST = 64
"""Maximum depth of nested folders. Stepwell and the libraries that use a scratch folder need only a few levels."""
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
    """A store's directory. Every method may be called from any thread. Names are relative to the directory and separated by ``/``.

    Parameters
    ----------
    path
        The absolute path of the directory.
    follow
        True if the path may itself be a link, because the user named this path.

    Raises
    ------
    UntrustedStoreError
        From every method, if it encounters an entry that a store never contains.
    OSError
        From every method, as from the function of the same name in `os`.
    """

    def __init__(self, path: Path, *, follow: bool = True) -> None:
        self.path = path
        self._follow = follow
        self._mutex = threading.RLock()
        self._descriptor = -1
        self._outdated: list[int] = []
        """Descriptors of directories that were replaced, which stay open because another thread may be using one of them."""
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
        """Refuse the directory if an entry could lead Stepwell to files outside the store.

        Parameters
        ----------
        create
            True to create the directory and its fixed contents if they are missing.

        Raises
        ------
        UntrustedStoreError
            If an entry is refused; the message names it.
        FileNotFoundError
            If the directory does not exist and ``create`` is false.
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
                        # A folder that cannot be listed is checked when it is used.
                        with contextlib.suppress(PermissionError):
                            self._examine_below(name, status)
                elif status.st_nlink > 1 and name in _WRITTEN_IN_PLACE:
                    self._check_names(name, status)
            if create:
                self._complete()

    def _examine_below(self, folder: str, status: os.stat_result) -> None:
        """Check the type of each entry of a folder if the folder has changed since the last check."""
        state = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        if self._checked_files.get(folder) == state:
            return
        with self._folder_descriptor(folder) as descriptor, os.scandir(self._place(descriptor, folder)) as entries:
            for entry in entries:
                # The listing includes the type of each entry, so no system call per entry is needed.
                if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                    name = f"{folder}/{entry.name}"
                    self._check(name, self._status(descriptor, name, entry.name))
        self._checked_files[folder] = state

    def _check(self, name: str, status: os.stat_result) -> None:
        """Refuse an entry that is neither a file nor a folder, or that belongs to neither the user nor the group of the directory."""
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise self._untrusted(name, _KINDS.get(stat.S_IFMT(status.st_mode), "a special file"))
        root = self._status_of_root
        if root is not None and status.st_uid != root.st_uid and status.st_gid != root.st_gid:
            raise self._untrusted(
                name,
                f"something of another user ({user_name(status.st_uid)}, {group_name(status.st_gid)})",
                where=f"the store belongs to {user_name(root.st_uid)}, group {group_name(root.st_gid)}",
                remedy=f"if you trust it: chgrp {group_name(root.st_gid)} {self.path / name}; else remove it",
            )

    def _check_names(self, name: str, status: os.stat_result) -> None:
        """Refuse a file with a hard link outside the store. A link inside is allowed: ``doctor --rebuild`` makes one to the catalog."""
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
                remedy=f"replace it with a copy: cp -p {path} {path}.new && mv {path}.new {path}",
            )

    def _untrusted(self, name: str, kind: str, *, where: str = "", remedy: str = "") -> UntrustedStoreError:
        return UntrustedStoreError(
            f"the store {self.path} contains {kind}: {name!r}",
            where=where or "through it, Stepwell could read or change files outside the store",
            remedy=remedy
            or f"remove {self.path / name}; to keep a store on another disk, name its directory: --store DIR or STEPWELL_STORE=DIR",
        )

    # -- the directory itself ----------------------------------------------------------------------------------------------

    def _reopen(self) -> None:
        """Open the directory at the path unless it is open already."""
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
                f"the store {self.path} is a link, and links are only followed for a store that you name",
                where=f"it leads to {os.path.realpath(self.path)}",
                remedy="if you made the link, name the store: --store DIR, store='DIR' or STEPWELL_STORE=DIR; else remove the link",
            )
        if (
            self._descriptor >= 0
            and self._status_of_root is not None
            and os.path.samestat(current, self._status_of_root)
        ):
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
        """Create the directory, shared with the group if the group shares the parent folder by its setgid bit."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        above = self.path.parent.stat()
        with contextlib.suppress(FileExistsError):
            self.path.mkdir()
            mode = self.path.stat().st_mode
            if above.st_mode & stat.S_ISGID and above.st_mode & stat.S_IWGRP:
                self.path.chmod(stat.S_IMODE(mode) | stat.S_ISGID | above.st_mode & stat.S_IRWXG)

    def _complete(self) -> None:
        """Create the files and folders that every store contains."""
        for name, text in ((".gitignore", "*\n"), ("CACHEDIR.TAG", CACHEDIR_TAG)):
            with contextlib.suppress(FileExistsError):
                self.write(name, text.encode())
        for name in ("objects", "runs", "tmp", "claims"):
            self.mkdir(name)

    def is_in_place(self) -> bool:
        """Return True if the path still refers to the open directory."""
        status = self._status_of_root
        try:
            return status is not None and os.path.samestat(self.path.stat(follow_symlinks=self._follow), status)
        except OSError:
            return False

    @property
    def owner(self) -> os.stat_result:
        """The status of the directory at its last examination."""
        self._root()
        assert self._status_of_root is not None
        return self._status_of_root

    @property
    def is_shared(self) -> bool:
        """True if the directory, with every file in it, is shared with its group."""
        self._root()
        return self._modes is not None

    def obstacle(self, names: Iterable[str]) -> OSError | None:
        """Return the error that writing to the directory would raise, without writing anything; None if the user can write.

        Parameters
        ----------
        names
            Files and folders that must be writable if they exist.
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
        """Return the status of a file or folder."""
        with self._parent(name) as (descriptor, leaf):
            status = self._status(descriptor, name, leaf)
        self._check(name, status)
        return status

    def glance(self, name: str) -> os.stat_result:
        """Return the status of a file with one system call, for checks of many files. Links to folders are followed; no data is read."""
        status = os.lstat(name, dir_fd=self._root()) if _ANCHORED else os.lstat(self.path / name)
        self._check(name, status)
        return status

    def exists(self, name: str) -> bool:
        """Return True if a file or folder with this name exists."""
        try:
            self.stat(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Open a file; a new one gets the group and mode of a shared store."""
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
            # The system's error for a link, a socket or a pipe without a reader does not name the type of the entry.
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
        """Return the contents of a file, or at most its first ``max_bytes`` bytes."""
        descriptor = self.open(name)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return file.read(max_bytes)

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Create a file with the given contents; raise `FileExistsError` if the file exists."""
        descriptor = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    def copy(self, old: str, new: str) -> None:
        """Copy the contents of a file to a new file; raise `FileExistsError` if the new file exists."""
        with os.fdopen(self.open(old), "rb", buffering=0) as source:
            created = self.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(created, "wb", buffering=0) as target:
                shutil.copyfileobj(source, target, _PIECE)

    def mkdir(self, name: str) -> None:
        """Create a folder if it does not exist."""
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
        """Rename a file, replacing an existing file of the new name."""
        with self._parent(old) as (source, was), self._parent(new) as (target, name):
            self._check(old, self._status(source, old, was))
            os.replace(was, name, src_dir_fd=source, dst_dir_fd=target)

    def link(self, old: str, new: str) -> None:
        """Create a hard link to a file."""
        with self._parent(old) as (source, was), self._parent(new) as (target, name):
            self._check_file(old, self._status(source, old, was))
            os.link(was, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def unlink(self, name: str, *, missing_ok: bool = False) -> None:
        """Remove a file."""
        try:
            with self._parent(name) as (descriptor, leaf):
                os.unlink(leaf, dir_fd=descriptor)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self, name: str) -> None:
        """Remove a folder and its contents."""
        for entry, status in list(self._entries(name)):
            below = f"{name}/{entry}"
            if stat.S_ISDIR(status.st_mode):
                self.rmtree(below)
            else:
                self.unlink(below)
        with self._parent(name) as (descriptor, leaf):
            os.rmdir(leaf, dir_fd=descriptor)

    def entries(self, name: str) -> list[tuple[str, os.stat_result]]:
        """Return the name and status of each entry of a folder, sorted by name; an empty list if the folder does not exist."""
        try:
            entries = sorted(self._entries(name), key=lambda entry: entry[0])
        except FileNotFoundError:
            return []
        for entry, status in entries:
            self._check(f"{name}/{entry}" if name else entry, status)
        return entries

    def names(self, name: str) -> list[str]:
        """Return the names of a folder's entries without checking the entries; an empty list if the folder does not exist."""
        try:
            with self._folder_descriptor(name) as descriptor:
                return os.listdir(self._place(descriptor, name))  # noqa: PTH208 - of a descriptor
        except FileNotFoundError:
            return []

    def is_file(self, name: str, descriptor: int) -> bool:
        """Return True if a name refers to the file of an open descriptor."""
        try:
            return os.path.samestat(self.stat(name), os.fstat(descriptor))
        except (OSError, UntrustedStoreError):
            return False

    @staticmethod
    def is_open(status: os.stat_result) -> bool:
        """Return True if this process has the file with a status open, or if this cannot be determined."""
        try:
            descriptors = os.listdir(_PROC)  # noqa: PTH208 - with every attach
        except OSError:
            return True
        for descriptor in descriptors:
            # The descriptor that was used for the listing is already closed.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(int(descriptor)), status):
                    return True
        return False

    def sync(self, name: str) -> None:
        """Flush the contents of a file or folder to the disk."""
        if sys.platform == "win32":
            return
        descriptor = self.open(name, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def give(self, name: str, *, like: str = "") -> None:
        """Set the owner, group and mode of a file that another library created.

        Parameters
        ----------
        name
            The file. In a shared store it gets the group and mode of the store.
        like
            Another file, whose owner, group and mode are used instead; empty for none.
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
        """Yield a path by which DuckDB can attach a file. The path is valid only inside the block; DuckDB resolves it at once."""
        with self._parent(name) as (descriptor, leaf):
            with contextlib.suppress(FileNotFoundError):
                self._check_file(name, self._status(descriptor, name, leaf))
            yield f"{_PROC}/{descriptor}/{leaf}" if _has_proc(descriptor) else str(self.path / name)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a new folder below ``tmp/`` for files of other libraries; remove the folder with its contents at the end."""
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
        """Yield the descriptor of the folder that contains an entry, and the entry's name in it; on Windows, None and the whole path."""
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
        """Yield the descriptor of a folder, opened without following links; None on Windows."""
        descriptor: int | None = self._root()
        if not _ANCHORED:
            self._check_parts(folder)
            yield None
            return
        if folder.count("/") > _DEEPEST:
            raise OSError(errno.ELOOP, "Too many folders within folders", str(self.path / folder))
        opened: list[int] = []
        try:
            entered = ""
            # The directory itself is opened again, because a listing moves the position of its descriptor.
            for part in folder.split("/") if folder else (".",):
                entered = f"{entered}/{part}" if entered else part
                descriptor = self._open_leaf(descriptor, entered, part, _DIRECTORY | os.O_NOFOLLOW)
                opened.append(descriptor)
                if entered != part:
                    # Folders directly below the directory were checked by `examine`.
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
        """Give a new file the group and mode of a shared directory. If root created the file, give it to the owner of the directory."""
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
        # Another thread of the parent may have held the lock.
        folder._mutex = threading.RLock()  # noqa: SLF001 - of this very file


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _shared_modes(directory: os.stat_result) -> tuple[int, int] | None:
    """Return the modes of files and folders in a directory that is shared with its group; None if it is not shared."""
    if sys.platform == "win32" or not directory.st_mode & (stat.S_IWGRP | stat.S_ISGID):
        return None
    mode = stat.S_IMODE(directory.st_mode)
    return mode & 0o666, mode


def _has_proc(descriptor: int | None) -> bool:
    return descriptor is not None and os.path.isdir(f"{_PROC}/{descriptor}")  # noqa: PTH112 - on the way of every attach


def user_name(number: int) -> str:
    """Return the name of a user, or the number if the user has no name."""
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return str(number)


def group_name(number: int) -> str:
    """Return the name of a group, or the number if the group has no name."""
    try:
        import grp

        return grp.getgrgid(number).gr_name
    except (ImportError, KeyError):
        return str(number)
