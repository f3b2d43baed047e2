"""What becomes of the catalogs when this process forks, and when it ends."""

from __future__ import annotations

import os
import threading
import weakref
from _thread import interrupt_main, start_new_thread
from typing import Protocol

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.store.catalog.instance import abandon_instance, at_end
from stepwell.kernel_runtime.store.once import Once


class Forking(Protocol):
    """What is asked of a catalog here."""

    def pause(self) -> None:
        """Let the catalog go, and keep it so until `resume`: before a fork."""

    def resume(self) -> None:
        """Go on after a fork, in the parent."""

    def abandon(self) -> None:
        """Start anew in a forked child."""

    def close(self) -> None:
        """Commit what is pending and let the catalog go."""


catalogs: weakref.WeakSet[Forking] = weakref.WeakSet()
"""Those of this process."""
_paused: list[Forking] = []
_interrupted = Once()


def _before_fork() -> None:
    global _interrupted  # noqa: PLW0603 - of this fork
    _interrupted = Once()
    _paused[:] = list(catalogs)
    for catalog in _paused:
        while True:
            try:
                catalog.pause()
            except KeyboardInterrupt:
                # Here it would be printed and forgotten, and the fork go on without the pause.
                _interrupted.happen()
            else:
                break


def _after_fork_in_parent() -> None:
    for catalog in _paused:
        catalog.resume()
    _paused.clear()
    if _interrupted.over:
        # From another thread: in here, too, it would be printed and forgotten.
        start_new_thread(interrupt_main, ())


def _after_fork_in_child() -> None:
    abandon_instance()
    for catalog in _paused:
        catalog.abandon()
    _paused.clear()


_exiting = False


def check_going_on() -> None:
    """Keep work away from a process that ends: Python ends threads inside DuckDB's code then, which aborts the process."""
    if not _exiting:
        return
    if threading.current_thread() is threading.main_thread():
        raise StoreError("the store is closed: this process is ending", remedy="record what matters before")
    # A daemon thread: it ends with the process.
    Once().wait()


def _at_exit() -> None:
    global _exiting  # noqa: PLW0603 - of this process
    _exiting = True
    for catalog in list(catalogs):
        catalog.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
at_end(_at_exit)
