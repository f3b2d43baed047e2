"""What a step prints and displays: passed on as it happens, and kept with its materialization; and figures among its values.

While a run lasts, ``sys.stdout`` and ``sys.stderr`` are proxies that write through and, in the context of a step, also record.
The sink is a context variable, so that a thread started with a copied context records into its own step. Displays are
recorded by whoever publishes them: the notebook's face calls `Capture.display`. Figures are taken from pyplot before they are stored: a
figure that pyplot still manages would open a window, or be shown in a notebook, wherever its stored form is loaded. A picture of the figure
is part of the step's displays, so that a hit shows it without loading the figure. Cells display their figures themselves; those of functions
are rendered here.
"""

from __future__ import annotations

import base64
import contextlib
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Literal, TextIO, cast

from stepwell.kernel_runtime.records.runs import CapturedOutput


def release_figures(values: Iterable[Any]) -> None:
    """Close those of the values that are matplotlib figures; they stay usable, only pyplot forgets them."""
    module, pyplot = sys.modules.get("matplotlib.figure"), sys.modules.get("matplotlib.pyplot")
    if module is None or pyplot is None:
        return
    for value in values:
        if issubclass(type(value), module.Figure):
            pyplot.close(value)


def pictures(values: Iterable[Any]) -> Iterator[dict[str, str]]:
    """Yield those of the values that are matplotlib figures as displays: a rendered picture and a line of text."""
    module = sys.modules.get("matplotlib.figure")
    if module is None:
        return
    for value in values:
        if issubclass(type(value), module.Figure):
            data = io.BytesIO()
            # A figure that cannot be drawn is a value all the same.
            with contextlib.suppress(Exception):
                value.savefig(data, format="png", bbox_inches="tight")
                yield {"image/png": base64.b64encode(data.getvalue()).decode("ascii"), "text/plain": repr(value)}


LIMIT = 1_000_000
"""Characters of text and display data that are kept of one step; the rest is counted only."""

_current: ContextVar[Capture | None] = ContextVar("stepwell_capture", default=None)


class Capture:
    """The sink of one step."""

    __slots__ = ("_left", "_outputs", "_parts", "_stream", "dropped", "show_displays", "step_key")

    def __init__(self, step_key: str, *, show_displays: bool = True) -> None:
        self.step_key = step_key
        self.show_displays = show_displays
        """Whether displays are to appear in the cell that is running, beside being kept."""
        self.dropped = 0
        """Characters that were not kept."""
        self._outputs: list[CapturedOutput] = []
        self._stream = ""
        self._parts: list[str] = []
        self._left = LIMIT

    def write(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        """Record what was printed."""
        if self._left <= 0:
            self.dropped += len(text)
            return
        if len(text) > self._left:
            self.dropped += len(text) - self._left
            text = text[: self._left]
        self._left -= len(text)
        if stream != self._stream:
            self._end_stream()
            self._stream = stream
        self._parts.append(text)

    def display(self, data: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        """Record a display: a MIME bundle of JSON values."""
        size = sum(len(value) if isinstance(value, str | bytes) else 1000 for value in data.values())
        if size > self._left and self._left < LIMIT:
            self.dropped += size
            return
        self._left -= size
        self._end_stream()
        self._outputs.append(CapturedOutput("display_data", data=dict(data), metadata=dict(metadata or {})))

    def clear(self) -> None:
        """Forget what was recorded so far: the step cleared its output."""
        self._end_stream()
        self._outputs.clear()
        self._left = LIMIT

    def _end_stream(self) -> None:
        if self._parts:
            self._outputs.append(CapturedOutput("stream", self._stream, "".join(self._parts)))
            self._parts = []

    def outputs(self) -> tuple[CapturedOutput, ...]:
        """Return what was recorded, in order."""
        self._end_stream()
        self._stream = ""
        if self.dropped:
            self._outputs.append(
                CapturedOutput("stream", "stdout", f"... {self.dropped:,} more characters were not kept\n")
            )
            self.dropped = 0
        return tuple(self._outputs)


class _Tee:
    """A stream that writes through and records in the context of a step."""

    def __init__(self, stream: TextIO, name: Literal["stdout", "stderr"]) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        sink = _current.get()
        if sink is not None and text:
            sink.write(self._name, text)
        return self._stream.write(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def current() -> Capture | None:
    """Return the sink of the step that runs in this context, or None."""
    return _current.get()


class recording:  # noqa: N801 - used as a function; a generator's context manager costs each step three times as much
    """Record into a sink what the block prints and displays; None records nothing."""

    __slots__ = ("_capture", "_token")
    _token: Token[Capture | None]

    def __init__(self, capture: Capture | None) -> None:
        self._capture = capture

    def __enter__(self) -> None:
        self._token = _current.set(self._capture)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


@contextmanager
def proxied() -> Iterator[None]:
    """Put the proxies in place for the duration of a run."""
    before = sys.stdout, sys.stderr
    mine = _Tee(before[0], "stdout"), _Tee(before[1], "stderr")
    sys.stdout, sys.stderr = streams = cast("tuple[TextIO, TextIO]", mine)
    try:
        yield
    finally:
        # A step may have replaced a stream on purpose and left it so.
        if sys.stdout is streams[0]:
            sys.stdout = before[0]
        if sys.stderr is streams[1]:
            sys.stderr = before[1]
