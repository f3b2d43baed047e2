"""Events reach the browser at most every 50 ms, from a thread of their own: a step must not wait for a picture.

Delivering takes the interpreter from the steps that run; it rests five times as long as it worked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from stepwell.kernel_runtime.records.events import Event

INTERVAL = 0.05
"""Seconds between two deliveries."""


class Paced:
    """Collects events, and delivers what has come together.

    Parameters
    ----------
    deliver
        Called with the events in their order, always from the same thread.
    """

    def __init__(self, deliver: Callable[[list[Event]], None]) -> None:
        self._deliver = deliver
        self._waiting: deque[Event] = deque()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, event: Event) -> None:
        """Take an event, on any thread, without waiting."""
        self._waiting.append(event)
        if not self._wake.is_set():
            self._start()
            self._wake.set()

    def close(self) -> None:
        """Deliver nothing more."""
        self._closed = True
        self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._go, name="stepwell-picture", daemon=True)
                self._thread.start()

    def _go(self) -> None:
        while self._wake.wait() and not self._closed:
            self._wake.clear()
            events = [self._waiting.popleft() for _ in range(len(self._waiting))]
            started = time.monotonic()
            try:
                if events:
                    self._deliver(events)
            except Exception:
                # The next events bring the full picture again; a thread that ended would leave it as it is for good.
                logging.getLogger("stepwell").exception("the picture of the lineage was not updated")
            time.sleep(max(INTERVAL, 5 * (time.monotonic() - started)))
