"""Programs and processes that a step starts: what these read is not seen, so that the step's user is told.

What they write is found by comparing the folders of the project before the first of them starts and after the step (`file_state.Tree`).

Not told is what libraries start to know the machine (``lscpu``, ``fc-list``), and workers that a library gives the data of the step itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from stepwell.kernel_runtime.reads.recorder import ReadRecorder
from stepwell.kernel_runtime.versions.ownership import is_input_path

PROCESSES = "other processes"
_THROUGH = frozenset({"subprocess", "os", "pty", "asyncio", "multiprocessing", "concurrent", "selectors", "threading", "contextlib", "stepwell"})  # fmt: skip
_KNOWING_THE_MACHINE = frozenset({
    "platform", "ctypes", "uuid", "joblib", "loky", "matplotlib", "setuptools", "distutils", "sysconfig", "IPython", "ipykernel", "numba", "torch",
    "triton", "psutil", "webbrowser", "getpass",
})  # fmt: skip
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
    if apart and parallel.n_jobs not in {1, None} and (frame is None or is_input_path(frame.f_code.co_filename)):
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
