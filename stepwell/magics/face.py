"""The state that the magics of one kernel share (`Face`), and the display of runs: printed lines, progress, recorded output and figures.

During a run of several steps, a progress line names the steps that will run and the step that is running. In a notebook, the line is a display
that is updated. At the end of the run, the initial text of the line is restored, so that a saved notebook contains no times of the run. In a
terminal and in batch, the line is printed once and not updated.

What a step displays is recorded and stored with the step, except widgets, updates of displays, and output beyond a limit. The displays of the
steps of the running cell are also shown, both when the steps run and when they are reused; the displays of upstream steps are only recorded.
While the extension is loaded, it wraps the display publisher of the shell to record displays.

A figure is rendered when the step that opened it ends: the picture is recorded as a display, and pyplot closes the figure. If the figure stayed
open, the notebook would show it a second time, and loading the stored figure would open a window.
"""

from __future__ import annotations

import base64
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, TracebackType
from typing import Any

from stepwell.commands.wording import waiting_line
from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, JobDefinition
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.errors import CellValueError
from stepwell.kernel_runtime.execution import in_process
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.records.runs import CapturedOutput, Event, StepFinished, StepStarted, StepWaiting
from stepwell.kernel_runtime.session.session import DEFINE
from stepwell.kernel_runtime.text import duration, printable

# -- displays

_LIVE = ("application/vnd.jupyter.widget-view+json",)
"""MIME types of displays that need a running kernel. They are not recorded."""


class DisplayHook:
    """Records the displays of steps: while installed, it wraps the methods of the shell's display publisher."""

    def __init__(self, shell: Any) -> None:
        self._publisher = shell.display_pub
        self._publish = self._publisher.publish
        self._clear = self._publisher.clear_output
        self.quiet = False
        """True if the displays of steps are recorded but not shown."""

    def install(self) -> None:
        """Wrap the methods of the display publisher."""
        self._publisher.publish = self._wrapped_publish
        self._publisher.clear_output = self._wrapped_clear

    def remove(self) -> None:
        """Restore the methods of the display publisher, except those that other code has replaced since."""
        for name, mine in (("publish", self._wrapped_publish), ("clear_output", self._wrapped_clear)):
            if self._publisher.__dict__.get(name) == mine:
                del self._publisher.__dict__[name]

    def _wrapped_publish(self, data: Any, metadata: Any = None, *args: Any, **kwargs: Any) -> Any:
        sink = in_process.current()
        if sink is None:
            return self._publish(data, metadata, *args, **kwargs)
        if not kwargs.get("update"):
            sink.display(_portable(data), _portable(metadata or {}))
        if sink.show_displays and not self.quiet:
            # The publisher of a terminal prints the display. The display is already recorded, so the printed text must not be recorded, too.
            with in_process.recording(None):
                self._publish(data, metadata, *args, **kwargs)
        return None

    def _wrapped_clear(self, wait: bool = False) -> Any:
        sink = in_process.current()
        if sink is None:
            return self._clear(wait)
        sink.clear()
        if sink.show_displays and not self.quiet:
            with in_process.recording(None):
                self._clear(wait)
        return None


def _portable(data: dict[str, Any]) -> dict[str, Any]:
    """Return a MIME bundle in a form that JSON can represent and that can be shown without a running kernel.

    Bytes are encoded as base64, and widgets are left out.
    """
    portable = {}
    for mime, value in data.items():
        if mime in _LIVE:
            continue
        portable[mime] = base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
    return portable


def show_again(outputs: Iterable[CapturedOutput], *, displays: bool = True) -> None:
    """Show the recorded output of a step again: the printed text and, if `displays` is True, the rich output, such as tables and figures."""
    from IPython.display import publish_display_data

    for output in outputs:
        if output.kind == "stream":
            stream = sys.stderr if output.stream == "stderr" else sys.stdout
            stream.write(output.text)
            stream.flush()
        elif displays and output.data:
            publish_display_data(dict(output.data), dict(output.metadata))  # type: ignore[no-untyped-call]


def show(value: Any) -> None:
    """Display the value of the last expression of a body. A matplotlib figure is shown as a picture."""
    figure = figure_of(value)
    if figure is not None:
        show_figure(figure)
        return
    from IPython.display import display

    display(value)  # type: ignore[no-untyped-call]


# -- figures


def pyplot() -> Any:
    """Return the module ``matplotlib.pyplot``, or None if it is not imported."""
    return sys.modules.get("matplotlib.pyplot")


def figure_of(value: Any) -> Any:
    """Return `value` if it is a matplotlib figure; otherwise return None."""
    module = sys.modules.get("matplotlib.figure")
    return value if module is not None and isinstance(value, module.Figure) else None


def show_figure(figure: Any) -> None:
    """Display a matplotlib figure as a picture, regardless of the backend that is set."""
    from IPython.core.formatters import format_display_data
    from IPython.display import publish_display_data

    data, metadata = format_display_data(figure)  # type: ignore[no-untyped-call]
    if not any(mime.startswith("image/") for mime in data):
        from IPython.core.pylabtools import print_figure

        data["image/png"] = print_figure(figure, fmt="png", base64=True)  # type: ignore[no-untyped-call]
    publish_display_data(data, metadata)  # type: ignore[no-untyped-call]


class Figures:
    """Shows and closes the pyplot figures that the body of a step opens."""

    def __init__(self) -> None:
        self._figures_before: frozenset[int] = frozenset()
        self._shown_figure: Any = None
        self._show: Any = None
        """The original ``plt.show`` while a step runs, else None."""
        self._closed_figures: list[Any] = []
        """The figures that the step opened, and that ``plt.show`` has shown and closed."""

    def begin(self) -> None:
        """Before a step runs, note which figures are open, and replace ``plt.show`` by `_show_open_figures`."""
        self._figures_before = _open_numbers()
        self._closed_figures = []
        module = pyplot()
        if module is not None and self._show is None:
            self._show = module.show
            # pyplot sets attributes of this function, which a method does not accept.
            module.show = partial(self._show_open_figures)

    def _show_open_figures(self, *_: Any, **__: Any) -> None:
        """Show and close all open figures, as ``plt.show`` does with the backend of notebooks. With any other backend, do nothing.

        The figures that are not shown here are shown at the end of the step (`settle`).
        """
        module = pyplot()
        if "inline" not in module.get_backend():
            return
        for number in module.get_fignums():
            figure = module.figure(number)
            show_figure(figure)
            module.close(figure)
            if number not in self._figures_before:
                self._closed_figures.append(figure)

    def end(self) -> None:
        """Restore ``plt.show``."""
        module = pyplot()
        if module is not None and self._show is not None:
            module.show, self._show = self._show, None

    def show(self, value: Any) -> None:
        """Display the value of the last expression of a body. If the value is a figure, note it, so that `settle` does not show it again."""
        self._shown_figure = figure_of(value)
        show(value)

    def opened_figures(self) -> list[Any]:
        """Return the figures that the step opened, except those that its code has closed."""
        module = pyplot()
        still_open = sorted(_open_numbers() - self._figures_before)
        return [*self._closed_figures, *[module.figure(number) for number in still_open]]

    def settle(self, values: tuple[Any, ...]) -> None:
        """Show and close the figures that the body of a step opened. Also close the figures in `values`, even if they were open before the step.

        Parameters
        ----------
        values
            The values of the body: one for each output of the step.
        """
        shown, self._shown_figure = self._shown_figure, None
        self.end()
        module = pyplot()
        if module is None:
            return
        opened = self.opened_figures()
        for figure in opened:
            if figure is not shown and figure not in self._closed_figures:
                show_figure(figure)
            module.close(figure)
        self._closed_figures = []
        for value in values:
            # Loading a stored figure would open a window if pyplot still managed the figure when it was stored.
            if figure_of(value) is not None and value not in opened:
                module.close(value)


def _open_numbers() -> frozenset[int]:
    module = pyplot()
    return frozenset(module.get_fignums()) if module is not None else frozenset()


def value_or_figure(value: Any, figures: Figures, warn: Callable[[str], None], name: str, *, must: bool = False) -> Any:
    """Return the value of a cell that does not assign its variable: `value` or, if this is None, the only figure that the cell opened.

    Return None if `value` is None and the cell opened no figure or several. The figures that the cell opened are shown and closed.

    Parameters
    ----------
    value
        The value of the last expression of the cell; None if the cell has none.
    warn
        Called with a warning for the user if `value_or_figure` returns None.
    name
        The name of the asset or op, for messages.
    must
        What to do if `value` is None and the cell opened no figure: True to raise an error, False to return None.

    Raises
    ------
    CellValueError
        If `must` is True, `value` is None, and the cell opened no figure.
    """
    if value is not None:
        figures.settle((value,))
        return value
    opened = figures.opened_figures()
    if len(opened) == 1:
        figures.settle((opened[0],))
        return opened[0]
    figures.settle(())
    if must and not opened:
        raise CellValueError(
            f"the cell of {name!r} has no value",
            remedy=f"assign {name}, name the variable (%%asset {name} -> variable), or end the cell with the expression that is its value",
        )
    more = f": the cell opened {len(opened)} figures; end the cell with the figure that is the value" if opened else ""
    warn(f"{name}: the cell ends without a value, so its value is None{more}")
    return None


# -- the notebook's face of a session

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
    """The state that the magics of one kernel share: the shell, the session, the settings, and facts about the running cell.

    Attributes
    ----------
    settings
        The object with the magics, whose traits are the settings of ``%config Stepwell``.
    earlier_reads
        Maps the identifier of each cell (`cell_origin`) to a dict. This dict maps the name of each input of the cell to the key of the asset to which
        the name referred when the cell last ran.
    """

    shell: Any
    session: Any
    settings: Any
    displays: DisplayHook
    figures: Figures = field(default_factory=Figures)
    running: Any = None
    """IPython's record of the running cell; None if no cell is running."""
    earlier_reads: dict[str, dict[str, AssetKey]] = field(default_factory=dict)
    progress: Any = None
    """The `Progress` that shows the progress line of the current run; None if the run has no such line or does not update it."""
    composed: dict[int, Callable[..., Any]] = field(default_factory=dict)
    """The functions that compose a graph by running a `CellBody`. The key of each is the `id` of its body. The function refers to the body, so the
    `id` stays valid."""

    @property
    def namespace(self) -> dict[str, Any]:
        """The notebook's variables."""
        variables: dict[str, Any] = self.shell.user_ns
        return variables

    @property
    def timeline(self) -> Timeline:
        """The session's record of the cells and steps that ran, and of the variables of the notebook that each of them bound and changed."""
        timeline = self.session.timeline
        assert isinstance(timeline, Timeline)
        return timeline

    @property
    def interactive(self) -> bool:
        """True if a person runs the cells; False in a batch run."""
        return not os.environ.get("STEPWELL_BATCH")

    @property
    def defines_only(self) -> bool:
        """True if the command line started this kernel only to register the definitions of a notebook: no asset may run."""
        return bool(os.environ.get(DEFINE))

    def say(self, line: str) -> None:
        """Print one line about a run, unless the user has turned off such lines with ``%config Stepwell.lines = False``."""
        if self.settings.lines:
            say(line)

    def code_kind(self, name: str) -> str:
        """Return the kind of code to which `name` refers, such as ``an op``, ``a function`` or ``a magic``.

        Return an empty string if `name` refers to data, or is neither bound nor the name of a magic. A command may then bind `name` to another value.
        """
        if name not in self.namespace:
            return "a magic" if any(self.shell.find_magic(name, kind) for kind in ("line", "cell")) else ""
        value = self.namespace[name]
        return next((kind for types, kind in _CODE if isinstance(value, types)), "")

    def is_definition(self, name: str) -> bool:
        """Return True if the value of the variable `name` is the definition of an op, a graph or a job."""
        value = self.namespace.get(name)
        return (
            callable(value) and hasattr(type(value), "__stepwell_body__") and not hasattr(type(value), "__stepwell_asset_key__")
        )


def say(line: str) -> None:
    """Print one line on standard output, with control characters escaped."""
    sys.stdout.write(printable(line) + "\n")
    sys.stdout.flush()


_EVERY = 1.0
"""The time between two updates of the progress line, and before the first update, in seconds."""


class Progress:
    """A context manager that shows the progress line during a run.

    Parameters
    ----------
    line
        The initial text of the line, which names the steps that will run. If the text is empty, no line is shown.
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
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
    """Return the progress of a running step as text: ``step 2 of 5: clean, 12.0 s of about 18.2 s``. `elapsed` is in seconds."""
    expected = f" of about {duration(step.expected_seconds)}" if step.expected_seconds else ""
    return f"step {step.position} of {step.total}: {step.key}, {duration(elapsed)}{expected}"


WAITING = "waiting"
"""The value of the key ``stepwell`` in the metadata of a display that the batch runner prints but does not save in the executed notebook."""


def show_waiting(face: Face, event: StepWaiting) -> None:
    """Show that a step waits for another process that computes its value.

    In batch, the message is a display that is not saved. Otherwise it is part of the progress line of the run or, if there is none, a separate line.
    """
    line = waiting_line(event)
    if not face.interactive and hasattr(face.shell, "kernel"):
        face.shell.display_pub.publish({"text/plain": printable(line)}, {"stepwell": WAITING})
    elif face.progress is None:
        face.say(line)
