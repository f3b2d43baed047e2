"""Programs and processes that a step starts: what these read is not seen, so that the step's user is told.

What they write is found by comparing the folders of the project before the first of them starts and after the step (`Tree`).

Not told is what libraries start to know the machine (``lscpu``, ``fc-list``), and workers that a library gives the data of the step itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.versions.reads.files import counts, file_digest

if TYPE_CHECKING:
    from stepwell.kernel_runtime.versions.reads.recorder import ReadRecorder

PROCESSES = "other processes"
_THROUGH = frozenset({"subprocess", "os", "pty", "asyncio", "multiprocessing", "concurrent", "selectors", "threading", "contextlib", "stepwell"})  # fmt: skip
_KNOWING_THE_MACHINE = frozenset({
    "platform", "ctypes", "uuid", "joblib", "loky", "matplotlib", "setuptools", "distutils", "sysconfig", "IPython", "ipykernel", "numba", "torch",
    "triton", "psutil", "webbrowser", "getpass",
})  # fmt: skip
_MOST_ENTRIES = 20_000
_MOST_DIGESTED = 2_000
"""Files whose content is digested before a child may change it: a hit changes a file only where it finds that again."""
_LARGEST_DIGESTED = 1 << 20
_MOST_BYTES = 1 << 26
_FOREIGN_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})
_OF_EDITORS = (".ipynb", ".swp", ".swx", "~")
_SHELLS = frozenset({"sh", "bash", "zsh", "dash", "cmd", "cmd.exe"})


def program_started(recorder: ReadRecorder, executable: Any, arguments: Any = (), *_: Any) -> None:
    """Note that a program is about to be started (``subprocess.Popen``, ``os.posix_spawn``)."""
    words = [arguments] if isinstance(arguments, (str, bytes, os.PathLike)) else list(arguments or ())
    told = [os.fsdecode(word) for word in words] or [os.fsdecode(executable)]
    name = os.path.basename(told[0])  # noqa: PTH119 - an audit hook runs inside every open()
    if name in _SHELLS and told[1:2] and told[1] in {"-c", "/c"}:
        name = _first_word(told[2] if len(told) > 2 else name)
    elif len(told) == 1:
        name = _first_word(told[0])
    _note(recorder, name)


def command_run(recorder: ReadRecorder, command: Any) -> None:
    """Note that a shell is about to run a command (``os.system``)."""
    _note(recorder, _first_word(os.fsdecode(command)))


def process_started(recorder: ReadRecorder, args: tuple[Any, ...], _: Mapping[str, Any]) -> None:
    """Note that a process of ``multiprocessing``, or of a pool of ``concurrent.futures``, is about to be started."""
    if type(args[0]).__module__.partition(".")[0] not in {"joblib", "loky"}:
        _note(recorder, PROCESSES)


def pool_used(recorder: ReadRecorder, args: tuple[Any, ...], _: Mapping[str, Any]) -> None:
    """Note that ``joblib.Parallel`` is about to call functions in other processes: for the user, not for a library's own work."""
    parallel = args[0]
    apart = not type(getattr(parallel, "_backend", None)).__name__.startswith(("Threading", "Sequential"))
    frame = asker(sys._getframe(1), _THROUGH | {"joblib"})  # noqa: SLF001 - who asks decides
    if apart and parallel.n_jobs not in {1, None} and (frame is None or counts(frame.f_code.co_filename)):
        recorder.child_started(PROCESSES)


def work_sent(recorder: ReadRecorder, args: tuple[Any, ...], _: Mapping[str, Any]) -> None:
    """Note that a function is about to be called by a process of a pool, which may run since before the step."""
    if type(args[0]).__name__ != "ThreadPool":
        _note(recorder, PROCESSES)


def forked(recorder: ReadRecorder, *_: Any) -> None:
    """Note that this process is about to be forked (``os.fork``, ``os.forkpty``)."""
    _note(recorder, PROCESSES)


def _note(recorder: ReadRecorder, name: str) -> None:
    frame = asker(sys._getframe(1), _THROUGH)  # noqa: SLF001 - as above
    if frame is None or _top(frame) not in _KNOWING_THE_MACHINE or _is_command(frame):
        recorder.child_started(name)


def _is_command(frame: FrameType | None) -> bool:
    """Return True where the user has IPython run a command: ``!make``."""
    while frame is not None and _top(frame) in _SHELLS_OF_PYTHON:
        if frame.f_code.co_name in {"system", "getoutput", "system_piped", "system_raw"}:
            return True
        frame = frame.f_back
    return False


_SHELLS_OF_PYTHON = frozenset({"IPython", "ipykernel", "pexpect", "ptyprocess", "pty"})


def asker(frame: FrameType | None, through: Sequence[str] | frozenset[str]) -> FrameType | None:
    """Return the innermost frame that belongs to none of some modules."""
    while frame is not None and _top(frame) in through:
        frame = frame.f_back
    return frame


def _top(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _first_word(command: str) -> str:
    return os.path.basename(command.split(maxsplit=1)[0]) if command.split() else "a shell"  # noqa: PTH119 - as above


class Tree:
    """The files and folders below some folders, as they are now.

    Hidden folders, environments of Python and what editors save by themselves are left out. Of very many files the nearest count.

    Parameters
    ----------
    roots
        The folders.
    digests
        Whether the contents of small files are digested.
    """

    def __init__(self, roots: Iterable[str], *, digests: bool = False) -> None:
        self.roots = tuple(roots)
        self.files: dict[str, tuple[int, ...]] = {}
        """Size, time of change and inode of each."""
        self.folders: set[str] = set()
        self.digests: dict[str, str] = {}
        level = list(self.roots)
        while level and len(self.files) + len(self.folders) < _MOST_ENTRIES:
            level = [each for folder in level for each in self._entered(folder)]
        left = _MOST_BYTES
        for path, (size, *_) in self.files.items() if digests else ():
            if size <= min(_LARGEST_DIGESTED, left) and len(self.digests) < _MOST_DIGESTED:
                left -= size
                self.digests[path] = file_digest(path) or ""

    def _entered(self, folder: str) -> list[str]:
        inner = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not self._is_foreign(entry):
                            inner.append(entry.path)
                    elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(_OF_EDITORS):
                        stat = entry.stat(follow_symlinks=False)
                        self.files[entry.path] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        except OSError:
            return []
        self.folders.update(inner)
        return inner

    @staticmethod
    def _is_foreign(entry: os.DirEntry[str]) -> bool:
        return (
            entry.name.startswith(".")
            or entry.name in _FOREIGN_FOLDERS
            or os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))  # noqa: PTH110, PTH118 - as above
        )
