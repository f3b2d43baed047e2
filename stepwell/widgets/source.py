"""What a widget asks of a session. The session of the kernel runtime is the one implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from stepwell.kernel_runtime.records.events import Subscriber
from stepwell.kernel_runtime.records.lineage import Lineage


class LineageSource(Protocol):
    """Current states, events of runs, and the three things that a button can ask for."""

    def lineage(self) -> Lineage:
        """Return everything that is defined, with current states."""

    def subscribe(self, subscriber: Subscriber, /) -> Callable[[], None]:
        """Call the subscriber with every event, on the thread that publishes it, until the returned function is called."""

    def rerun(self, keys: Sequence[str], /) -> object:
        """Run these steps on stored inputs, in this thread; raise what the user's code raises."""

    def materialize(self, keys: Sequence[str], /) -> object:
        """Bring these assets up to date, in this thread; raise what the user's code raises."""

    def cancel(self, run_id: str | None = None, /) -> object:
        """End the run that goes on, if it is this one, and its running step; may be called on any thread, returns at once."""
