"""What the magics of one kernel share: the shell, the session, the settings, the cell that is running, and the line of a run that goes on.

While a run with several steps lasts, a line names the work and the step that is running. In a notebook the line is one display that is updated, and ends as it began, so that a saved notebook keeps a quiet line and no
times of the run. In a terminal, and in batch, it is printed once.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, TracebackType
from typing import Any

from stepwell.commands.wording import waiting_line
from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, JobDefinition
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.records.events import Event, StepFinished, StepStarted, StepWaiting
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.session.session import DEFINE
from stepwell.kernel_runtime.text import duration, printable
from stepwell.magics.displays import DisplayHook, Figures

_CODE: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (OpDefinition, "an op"),
    (GraphDefinition, "a graph"),
    (JobDefinition, "a job"),
    ((AssetsDefinition, SourceAsset), "an asset definition"),
    (type, "a class"),
    (ModuleType, "a module"),
    ((FunctionType, BuiltinFunctionType, MethodType), "a function"),
)


@dataclass(slots=True)
class Face:
    """The notebook's face of a session.

    Attributes
    ----------
    settings
        The traits of ``%config Stepwell``.
    read_before
        By the origin of a cell, which asset each name was that it read when it ran last.
    """

    shell: Any
    session: Any
    settings: Any
    displays: DisplayHook
    figures: Figures = field(default_factory=Figures)
    running: Any = None
    """What IPython says of the cell that is running; None between cells."""
    read_before: dict[str, dict[str, AssetKey]] = field(default_factory=dict)
    progress: Any = None
    """The line about a run that is updated while it lasts, where there is one."""
    composed: dict[int, Callable[..., Any]] = field(default_factory=dict)
    """By the identity of a composition's body, what composes it; each keeps its body."""

    @property
    def namespace(self) -> dict[str, Any]:
        """The notebook's variables."""
        found: dict[str, Any] = self.shell.user_ns
        return found

    @property
    def timeline(self) -> Timeline:
        """What happened to the notebook's variables."""
        found = self.session.timeline
        assert isinstance(found, Timeline)
        return found

    @property
    def interactive(self) -> bool:
        """Whether a person waits for the cell."""
        return not os.environ.get("STEPWELL_BATCH")

    @property
    def defines_only(self) -> bool:
        """Whether the notebook's definitions are only registered in this kernel."""
        return bool(os.environ.get(DEFINE))

    def say(self, line: str) -> None:
        """Print one line about a run, unless such lines are turned off."""
        if self.settings.lines:
            say(line)

    def code_at(self, name: str) -> str:
        """Return which kind of code a name means, such as ``an op``, that a command must not bind over; empty if it may."""
        if name not in self.namespace:
            return "a magic" if any(self.shell.find_magic(name, kind) for kind in ("line", "cell")) else ""
        value = self.namespace[name]
        return next((kind for types, kind in _CODE if isinstance(value, types)), "")

    def is_definition(self, name: str) -> bool:
        """Whether a variable is an op, a graph or an alias: what a composition calls."""
        value = self.namespace.get(name)
        return (
            callable(value)
            and hasattr(type(value), "__stepwell_body__")
            and not hasattr(type(value), "__stepwell_asset_key__")
        )


def say(line: str) -> None:
    """Print a line for the person at the notebook."""
    sys.stdout.write(printable(line) + "\n")
    sys.stdout.flush()


_EVERY = 1.0
"""Seconds between updates, and before the first."""


class Progress:
    """Shows a line for as long as a run lasts.

    Parameters
    ----------
    line
        What the run is about to do; nothing is shown where it is empty.
    """

    def __init__(self, face: Face, line: str) -> None:
        self._face = face
        self._line = line
        self._over = threading.Event()
        self._step: tuple[StepStarted, float] | None = None
        self._waiting: StepWaiting | None = None
        self._handle: Any = None
        self._ticked = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        face = self._face
        if not self._line or not face.settings.lines:
            return
        if not (face.interactive and hasattr(face.shell, "kernel")):
            face.say(self._line)
            return
        from IPython.display import display

        self._handle = display({"text/plain": printable(self._line)}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        face.progress = self
        self._end = face.session.subscribe(self._on_event)
        self._thread = threading.Thread(target=self._tick, name="stepwell-progress", daemon=True)
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._over.set()
        self._face.progress = None
        self._end()
        self._thread.join(5)
        if self._ticked:
            self._handle.update({"text/plain": printable(self._line)}, raw=True)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self._step, self._waiting = (event, time.monotonic()), None
        elif isinstance(event, StepWaiting):
            self._waiting = event
        elif isinstance(event, StepFinished) and self._waiting is not None and event.step.key == self._waiting.key:
            self._waiting = None

    def _tick(self) -> None:
        while not self._over.wait(_EVERY):
            waiting, running = self._waiting, self._step
            if waiting is not None:
                words = waiting_line(waiting)
            elif running is not None:
                words = step_words(running[0], time.monotonic() - running[1])
            else:
                continue
            self._ticked = True
            self._handle.update({"text/plain": printable(f"{self._line} · {words}")}, raw=True)


def step_words(step: StepStarted, elapsed: float) -> str:
    """Return what is running: ``step 2 of 5: clean, 12.0 s of about 18.2 s``."""
    expected = f" of about {duration(step.expected_seconds)}" if step.expected_seconds else ""
    return f"step {step.position} of {step.total}: {step.key}, {duration(elapsed)}{expected}"


WAITING = "waiting"
"""In the metadata of a display, below ``stepwell``: the batch runner shows it and keeps it out of the executed notebook."""


def tell_waiting(face: Face, event: StepWaiting) -> None:
    """Say that a step waits for another process: in the line of the run if there is one, else in one of its own."""
    line = waiting_line(event)
    if not face.interactive and hasattr(face.shell, "kernel"):
        face.shell.display_pub.publish({"text/plain": printable(line)}, {"stepwell": WAITING})
    elif face.progress is None:
        face.say(line)
