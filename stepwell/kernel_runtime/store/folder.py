"""The store's directory: examined before it is used, and held open while it is.

A store can come in an archive or a repository that somebody else made. A link in it would have Stepwell write, rename or delete elsewhere; a
pipe or a device would block whoever opens it. Stepwell makes none of these. `Folder.examine` is the one place that refuses them, and every use
of a store begins there: a `Folder` opens its directory only through it.

The examination looks at every entry of the directory, and at the entries of the folders right below it, as often as these change. A
store can hold 100,000 value files, so what lies deeper is looked at when it is used. All other operations of `Folder` enforce the same rules
once more: they are relative to the descriptor of the directory, enter no link (``O_NOFOLLOW``), never wait for a pipe
(``O_NONBLOCK``) and look at what they opened. So a link that is planted after the examination is not followed either. Where a system has no
such calls (Windows), each part of a path is looked at just before it is used.

DuckDB opens files by path only. It is given the path of the descriptor below ``/proc/self/fd``, which it resolves when it attaches: that
is the directory that was examined, wherever it is by then (`Folder.database`).

Files of a store that several users share get the group and the mode of the directory, whatever the umask (as with git's
``core.sharedRepository``): where the directory is writable for its group, or has the setgid bit.
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
"""The folders of a store. Only `objects` and `tmp` have folders in them."""
CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory holds a Stepwell store: what notebooks computed. It can be computed again.\n"
    "# For information about cache directory tags see https://bford.info/cachedir/\n"
)
RESERVE = "reserve"
"""Room for a full disk (`trouble`)."""
_WRITTEN_IN_PLACE = ("catalog.duckdb", "catalog.duckdb.wal", "catalog.lock", "want.lock", "catalog.seal", RESERVE)
"""Files that change without being replaced: a second name of one elsewhere would change with it."""
_ANCHORED = os.open in os.supports_dir_fd and os.scandir in os.supports_fd and hasattr(os, "O_NOFOLLOW")
_CLOSED = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _CLOSED
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _CLOSED
_DEEPEST = 64
"""Folders within folders that are entered: what another library makes in a scratch folder has a few, and no more is Stepwell's."""
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
    """A store's directory. Every method from any thread; names are relative to it, with ``/``.

    Parameters
    ----------
    path
        The directory, absolute.
    follow
        Whether it may be a link itself: where the user named this very path.

    Raises
    ------
    UntrustedStoreError
        By every method, if it meets something that a store never has.
    OSError
        By every method, as of the call of the same name in `os`.
    """

    def __init__(self, path: Path, *, follow: bool = True) -> None:
        self.path = path
        self._follow = follow
        self._mutex = threading.RLock()
        self._descriptor = -1
        self._outdated: list[int] = []
        """Descriptors of directories that were replaced by others: another thread may use one just now."""
        self._own: os.stat_result | None = None
        self._modes: tuple[int, int] | None = None
        self._seen: dict[str, tuple[int, int, int]] = {}
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
        """Refuse the directory if there is anything in it through which a store could reach elsewhere.

        Parameters
        ----------
        create
            Make the directory, and what does not change in it, where it is not there.

        Raises
        ------
        UntrustedStoreError
            Naming what is refused.
        FileNotFoundError
            If there is no such directory.
        """
        with self._mutex:
            try:
                self._reopen()
            except FileNotFoundError:
                if not create:
                    raise
                self._make()
                self._reopen()
            for name, found in list(self._entries("")):
                self._check(name, found)
                if stat.S_ISDIR(found.st_mode):
                    if name in FOLDERS:
                        # What cannot be listed is looked at when it is used.
                        with contextlib.suppress(PermissionError):
                            self._examine_below(name, found)
                elif found.st_nlink > 1 and name in _WRITTEN_IN_PLACE:
                    self._check_names(name, found)
            if create:
                self._complete()

    def _examine_below(self, folder: str, found: os.stat_result) -> None:
        """Look at the kinds of what lies right below a folder, if that has changed since the last time."""
        state = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
        if self._seen.get(folder) == state:
            return
        with self._opened(folder) as descriptor, os.scandir(self._place(descriptor, folder)) as entries:
            for entry in entries:
                # The kind comes with the entry, without a call for each.
                if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                    name = f"{folder}/{entry.name}"
                    self._check(name, self._status(descriptor, name, entry.name))
        self._seen[folder] = state

    def _check(self, name: str, found: os.stat_result) -> None:
        """Refuse an entry that is neither file nor folder, or belongs to neither the directory's user nor its group."""
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise self._refused(name, _KINDS.get(stat.S_IFMT(found.st_mode), "something that is no file"))
        own = self._own
        if own is not None and found.st_uid != own.st_uid and found.st_gid != own.st_gid:
            raise self._refused(
                name,
                f"something of another user ({user_name(found.st_uid)}, {group_name(found.st_gid)})",
                where=f"the store belongs to {user_name(own.st_uid)}, group {group_name(own.st_gid)}",
                remedy=f"if you trust it: chgrp {group_name(own.st_gid)} {self.path / name}; else remove it",
            )

    def _check_names(self, name: str, found: os.stat_result) -> None:
        """Refuse a file that has another name outside the store; ``doctor --rebuild`` gives the catalog a second one inside."""
        inside = sum(
            os.path.samestat(found, each)
            for folder in ("", "tmp")
            if not folder or self.exists(folder)
            for _, each in self._entries(folder)
        )
        if inside < found.st_nlink:
            path = self.path / name
            raise self._refused(
                name,
                "a file that has another name outside the store (a hard link)",
                remedy=f"give the store a copy of its own: cp -p {path} {path}.new && mv {path}.new {path}",
            )

    def _refused(self, name: str, what: str, *, where: str = "", remedy: str = "") -> UntrustedStoreError:
        return UntrustedStoreError(
            f"the store {self.path} has {what} in it: {name!r}",
            where=where or "what is stored could be read and written elsewhere",
            remedy=remedy
            or f"remove {self.path / name}; to keep a store on another disk, name its place: --store DIR or STEPWELL_STORE=DIR",
        )

    # -- the directory itself ----------------------------------------------------------------------------------------------

    def _reopen(self) -> None:
        """Open the directory that the path leads to, unless it is open already."""
        try:
            there = self.path.stat(follow_symlinks=self._follow)
        except FileNotFoundError:
            self._let_go()
            if self._follow and self.path.is_symlink():
                raise UntrustedStoreError(
                    f"the store {self.path} is a link to a place that is not there",
                    remedy=f"make the folder {os.path.realpath(self.path)}, or remove the link",
                ) from None
            raise
        if stat.S_ISLNK(there.st_mode):
            raise UntrustedStoreError(
                f"the store {self.path} is a link, which nobody named",
                where=f"it leads to {os.path.realpath(self.path)}",
                remedy="if you made it, name the store: --store DIR, store='DIR' or STEPWELL_STORE=DIR; else remove the link",
            )
        if self._descriptor >= 0 and self._own is not None and os.path.samestat(there, self._own):
            own = there
        else:
            self._let_go()
            if not stat.S_ISDIR(there.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(self.path))
            if _ANCHORED:
                self._descriptor = os.open(self.path, _DIRECTORY if self._follow else _DIRECTORY | os.O_NOFOLLOW)
                own = os.fstat(self._descriptor)
            else:
                own = there
        self._own = own
        self._modes = _shared_modes(own)

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            self._outdated.append(self._descriptor)
        self._descriptor, self._own = -1, None
        self._seen.clear()

    def _make(self) -> None:
        """Make the directory; below a folder that a group shares by its setgid bit, it is the group's too."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        above = self.path.parent.stat()
        with contextlib.suppress(FileExistsError):
            self.path.mkdir()
            mode = self.path.stat().st_mode
            if above.st_mode & stat.S_ISGID and above.st_mode & stat.S_IWGRP:
                self.path.chmod(stat.S_IMODE(mode) | stat.S_ISGID | above.st_mode & stat.S_IRWXG)

    def _complete(self) -> None:
        """Make what is in every store."""
        for name, text in ((".gitignore", "*\n"), ("CACHEDIR.TAG", CACHEDIR_TAG)):
            with contextlib.suppress(FileExistsError):
                self.write(name, text.encode())
        for name in ("objects", "runs", "tmp", "claims"):
            self.mkdir(name)

    def is_in_place(self) -> bool:
        """Return whether the path still leads to the directory that is open."""
        own = self._own
        try:
            return own is not None and os.path.samestat(self.path.stat(follow_symlinks=self._follow), own)
        except OSError:
            return False

    @property
    def owner(self) -> os.stat_result:
        """The status of the directory, as of its last examination."""
        self._root()
        assert self._own is not None
        return self._own

    @property
    def is_shared(self) -> bool:
        """Whether the directory is its group's, so that every file in it is too."""
        self._root()
        return self._modes is not None

    def obstacle(self, names: Iterable[str]) -> OSError | None:
        """Return why this user cannot write the directory and some files in it, before anything is written; None if they can.

        Parameters
        ----------
        names
            Files that must be writable where they are there; folders too.
        """
        own = self.owner
        if sys.platform == "win32":
            return None
        if os.fstatvfs(self._root()).f_flag & os.ST_RDONLY:
            return OSError(errno.EROFS, os.strerror(errno.EROFS), str(self.path))
        for name in (".", *names):
            if not self._is_writable(name) and (name == "." or self.exists(name)):
                return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path / name))
        user, member = os.geteuid(), own.st_gid == os.getegid() or own.st_gid in os.getgroups()
        if user not in (0, own.st_uid) and not member and not (own.st_mode & stat.S_ISGID or sys.platform == "darwin"):
            text = f"files that you make would belong neither to {user_name(own.st_uid)} nor to the group {group_name(own.st_gid)}"
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
            found = self._status(descriptor, name, leaf)
        self._check(name, found)
        return found

    def glance(self, name: str) -> os.stat_result:
        """Return the status of a file in one call, also through links to folders: for many files of which nothing is read."""
        found = os.lstat(name, dir_fd=self._root()) if _ANCHORED else os.lstat(self.path / name)
        self._check(name, found)
        return found

    def exists(self, name: str) -> bool:
        """Return whether there is a file or folder of a name."""
        try:
            self.stat(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Open a file; one that is made gets the group and mode of a shared store."""
        with self._parent(name) as (descriptor, leaf):
            if flags & os.O_EXCL:
                return self._created(descriptor, name, leaf, flags)
            try:
                # A device would notice that it is opened.
                self._check(name, self._status(descriptor, name, leaf))
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
                return self._created(descriptor, name, leaf, flags)
            opened = self._open(descriptor, name, leaf, flags & ~os.O_CREAT | _SAFE)
        try:
            self._check_file(name, os.fstat(opened), written=bool(flags & (os.O_WRONLY | os.O_RDWR)))
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
            # Another process was quicker.
            opened = self._open(descriptor, name, leaf, flags & ~os.O_CREAT | _SAFE)
        try:
            self._give(opened)
            self._check_file(name, os.fstat(opened))
        except BaseException:
            os.close(opened)
            raise
        return opened

    def _open(self, descriptor: int | None, name: str, leaf: str, flags: int) -> int:
        try:
            return os.open(leaf, flags, dir_fd=descriptor)
        except OSError:
            # The error of a link, a pipe without a reader or a socket says nothing of these.
            with contextlib.suppress(FileNotFoundError):
                self._check(name, self._status(descriptor, name, leaf))
            raise

    def _check_file(self, name: str, found: os.stat_result, *, written: bool = False) -> None:
        self._check(name, found)
        if not stat.S_ISREG(found.st_mode):
            raise self._refused(name, "a folder in the place of a file")
        if found.st_nlink > 1 and (written or name in _WRITTEN_IN_PLACE):
            self._check_names(name, found)

    def read(self, name: str, most: int = -1) -> bytes:
        """Return the contents of a file, all or the first bytes."""
        descriptor = self.open(name)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return file.read(most)

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Make a file; a `FileExistsError` where there is one."""
        descriptor = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    def copy(self, old: str, new: str) -> None:
        """Make a file with the contents of another; a `FileExistsError` where there is one."""
        with os.fdopen(self.open(old), "rb", buffering=0) as source:
            made = self.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(made, "wb", buffering=0) as target:
                shutil.copyfileobj(source, target, _PIECE)

    def mkdir(self, name: str) -> None:
        """Make a folder, where it is not there."""
        with self._parent(name) as (descriptor, leaf):
            try:
                os.mkdir(leaf, dir_fd=descriptor)
            except FileExistsError:
                found = self._status(descriptor, name, leaf)
                self._check(name, found)
                if not stat.S_ISDIR(found.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(self.path / name)) from None
                return
            if _ANCHORED:
                made = os.open(leaf, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                try:
                    self._give(made, folder=True)
                finally:
                    os.close(made)

    def rename(self, old: str, new: str) -> None:
        """Rename a file, replacing one that is there."""
        with self._parent(old) as (source, was), self._parent(new) as (target, name):
            self._check(old, self._status(source, old, was))
            os.replace(was, name, src_dir_fd=source, dst_dir_fd=target)

    def link(self, old: str, new: str) -> None:
        """Give a file a second name."""
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
        """Remove a folder with what is in it."""
        for each, found in list(self._entries(name)):
            below = f"{name}/{each}"
            if stat.S_ISDIR(found.st_mode):
                self.rmtree(below)
            else:
                self.unlink(below)
        with self._parent(name) as (descriptor, leaf):
            os.rmdir(leaf, dir_fd=descriptor)

    def entries(self, name: str) -> list[tuple[str, os.stat_result]]:
        """Return the names and status of what is in a folder, sorted; nothing where there is no such folder."""
        try:
            found = sorted(self._entries(name), key=lambda each: each[0])
        except FileNotFoundError:
            return []
        for each, status in found:
            self._check(f"{name}/{each}" if name else each, status)
        return found

    def names(self, name: str) -> list[str]:
        """Return the names in a folder, without looking at any; nothing where there is no such folder."""
        try:
            with self._opened(name) as descriptor:
                return os.listdir(self._place(descriptor, name))  # noqa: PTH208 - of a descriptor
        except FileNotFoundError:
            return []

    def is_file(self, name: str, descriptor: int) -> bool:
        """Return whether a name still is the file that a descriptor has open."""
        try:
            return os.path.samestat(self.stat(name), os.fstat(descriptor))
        except (OSError, UntrustedStoreError):
            return False

    @staticmethod
    def is_open(found: os.stat_result) -> bool:
        """Return whether this process has a file open, or the system does not say so."""
        try:
            descriptors = os.listdir(_PROC)  # noqa: PTH208 - with every attach
        except OSError:
            return True
        for each in descriptors:
            # The descriptor of the listing is gone by now.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(int(each)), found):
                    return True
        return False

    def sync(self, name: str) -> None:
        """Write a file's or folder's contents to the disk."""
        if sys.platform == "win32":
            return
        descriptor = self.open(name, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def give(self, name: str, *, like: str = "") -> None:
        """Give a file that another library made the group and mode of a shared store, or owner and mode of another file."""
        if not (like or self._modes is not None or self._is_root()):
            return
        descriptor = self.open(name)
        try:
            self._give(descriptor)
            if like and sys.platform != "win32":
                model, made = self.stat(like), os.fstat(descriptor)
                if (model.st_uid, model.st_gid) != (made.st_uid, made.st_gid):
                    os.fchown(descriptor, model.st_uid, model.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(model.st_mode))
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def database(self, name: str) -> Iterator[str]:
        """Give the path by which DuckDB attaches a file. DuckDB resolves it then, so it is of no use afterwards."""
        with self._parent(name) as (descriptor, leaf):
            with contextlib.suppress(FileNotFoundError):
                self._check_file(name, self._status(descriptor, name, leaf))
            yield f"{_PROC}/{descriptor}/{leaf}" if _has_proc(descriptor) else str(self.path / name)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a new folder below ``tmp/`` for files of other libraries; it is removed at the end, with what is in it."""
        name = f"tmp/{new_id()}.scratch"
        self.mkdir("tmp")
        self.mkdir(name)
        try:
            with self._opened(name) as descriptor:
                yield Path(f"{_PROC}/{descriptor}") if _has_proc(descriptor) else self.path / name
        finally:
            with contextlib.suppress(OSError):
                self.rmtree(name)

    # -- how they are done -------------------------------------------------------------------------------------------------

    def _root(self) -> int:
        if self._own is None:
            self.examine()
        return self._descriptor

    @contextlib.contextmanager
    def _parent(self, name: str) -> Iterator[tuple[int | None, str]]:
        """Give the descriptor of the folder that a name is in, and its last part; without descriptors, the whole path."""
        root = self._root()
        above, _, leaf = name.rpartition("/")
        if not _ANCHORED:
            self._check_parts(above)
            yield None, str(self.path / name)
        elif not above:
            yield root, leaf
        else:
            with self._opened(above) as descriptor:
                yield descriptor, leaf

    @contextlib.contextmanager
    def _opened(self, folder: str) -> Iterator[int | None]:
        """Open a folder below the directory, through no link."""
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
            # The directory itself is opened once more: whoever lists it moves the position of its descriptor.
            for part in folder.split("/") if folder else (".",):
                entered = f"{entered}/{part}" if entered else part
                descriptor = self._open(descriptor, entered, part, _DIRECTORY | os.O_NOFOLLOW)
                opened.append(descriptor)
                if entered != part:
                    # Those right below were examined.
                    self._check(entered, os.fstat(descriptor))
            yield descriptor
        finally:
            for each in opened:
                os.close(each)

    def _check_parts(self, folder: str) -> None:
        parts = folder.split("/") if folder else []
        for at in range(len(parts)):
            name = "/".join(parts[: at + 1])
            found = os.lstat(self.path / name)
            self._check(name, found)
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(self.path / name))

    def _place(self, descriptor: int | None, folder: str) -> int | str:
        return str(self.path / folder) if descriptor is None else descriptor

    def _status(self, descriptor: int | None, name: str, leaf: str) -> os.stat_result:
        return os.lstat(self.path / name) if descriptor is None else os.lstat(leaf, dir_fd=descriptor)

    def _entries(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        with self._opened(folder) as descriptor, os.scandir(self._place(descriptor, folder)) as entries:
            for entry in entries:
                # Somebody may have removed it meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)

    def _is_root(self) -> bool:
        return sys.platform != "win32" and os.geteuid() == 0 and self.owner.st_uid != 0

    def _give(self, descriptor: int, *, folder: bool = False) -> None:
        """Give what was just made the group and mode of the directory where that is shared, and to its owner what root made."""
        if sys.platform == "win32":
            return
        own, root = self.owner, self._is_root()
        if self._modes is None and not root:
            return
        made = os.fstat(descriptor)
        if root or made.st_gid != own.st_gid:
            os.fchown(descriptor, own.st_uid if root else -1, own.st_gid)
        if self._modes is not None and stat.S_IMODE(made.st_mode) != self._modes[folder]:
            os.fchmod(descriptor, self._modes[folder])


_folders: weakref.WeakSet[Folder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for folder in list(_folders):
        # Another thread of the parent may have held it.
        folder._mutex = threading.RLock()  # noqa: SLF001 - of this very file


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _shared_modes(own: os.stat_result) -> tuple[int, int] | None:
    """Return the modes of files and folders in a directory that is its group's, else None."""
    if sys.platform == "win32" or not own.st_mode & (stat.S_IWGRP | stat.S_ISGID):
        return None
    mode = stat.S_IMODE(own.st_mode)
    return mode & 0o666, mode


def _has_proc(descriptor: int | None) -> bool:
    return descriptor is not None and os.path.isdir(f"{_PROC}/{descriptor}")  # noqa: PTH112 - on the way of every attach


def user_name(number: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return str(number)


def group_name(number: int) -> str:
    """Return the name of a group, or the number where there is none."""
    try:
        import grp

        return grp.getgrgid(number).gr_name
    except (ImportError, KeyError):
        return str(number)
