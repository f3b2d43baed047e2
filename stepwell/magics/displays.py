"""What steps display: recorded with the step, shown in the cell if the step is what the cell asks for, and shown again on a hit.

The shell's display publisher is wrapped for as long as the extension is loaded. Figures are rendered when their step ends:
the picture is recorded, the figure is closed in pyplot, so that it neither appears twice nor opens a window when it is loaded.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterable
from typing import Any

from stepwell.kernel_runtime.errors import CellValueError
from stepwell.kernel_runtime.execution import in_process
from stepwell.kernel_runtime.records.runs import CapturedOutput

_LIVE = ("application/vnd.jupyter.widget-view+json",)
"""What means nothing once its kernel is gone."""


class DisplayHook:
    """Wraps a shell's display publisher while it is installed."""

    def __init__(self, shell: Any) -> None:
        self._publisher = shell.display_pub
        self._publish = self._publisher.publish
        self._clear = self._publisher.clear_output
        self.quiet = False
        """Whether what steps display is only recorded."""

    def install(self) -> None:
        """Put the wrappers in place."""
        self._publisher.publish = self._wrapped_publish
        self._publisher.clear_output = self._wrapped_clear

    def remove(self) -> None:
        """Take the wrappers away, if they still are what is there."""
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
            # A terminal's publisher prints, and what it prints is recorded already.
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
    """Return a MIME bundle as JSON values; bytes of pictures as base64."""
    found = {}
    for mime, value in data.items():
        if mime in _LIVE:
            continue
        found[mime] = base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
    return found


def show_again(outputs: Iterable[CapturedOutput], *, streams: bool = True, displays: bool = True) -> None:
    """Show what a step printed and displayed when it ran."""
    from IPython.display import publish_display_data

    for output in outputs:
        if output.kind == "stream":
            if streams:
                stream = sys.stderr if output.stream == "stderr" else sys.stdout
                stream.write(output.text)
                stream.flush()
        elif displays and output.data:
            publish_display_data(dict(output.data), dict(output.metadata))  # type: ignore[no-untyped-call]


def show(value: Any) -> None:
    """Display the value of a body's last expression, a figure as its picture."""
    figure = figure_of(value)
    if figure is not None:
        show_figure(figure)
        return
    from IPython.display import display

    display(value)  # type: ignore[no-untyped-call]


# -- figures


def pyplot() -> Any:
    """Return matplotlib's pyplot if something has imported it."""
    return sys.modules.get("matplotlib.pyplot")


def figure_of(value: Any) -> Any:
    """Return a value that is a matplotlib figure, or None."""
    module = sys.modules.get("matplotlib.figure")
    return value if module is not None and isinstance(value, module.Figure) else None


def show_figure(figure: Any) -> None:
    """Display a figure with its rendered picture, whatever backend is in use."""
    from IPython.core.formatters import format_display_data
    from IPython.display import publish_display_data

    data, metadata = format_display_data(figure)  # type: ignore[no-untyped-call]
    if not any(mime.startswith("image/") for mime in data):
        from IPython.core.pylabtools import print_figure

        data["image/png"] = print_figure(figure, fmt="png", base64=True)  # type: ignore[no-untyped-call]
    publish_display_data(data, metadata)  # type: ignore[no-untyped-call]


class Figures:
    """The pyplot figures that bodies open."""

    def __init__(self) -> None:
        self._before: frozenset[int] = frozenset()
        self._shown: Any = None
        self._show: Any = None
        """The user's ``plt.show`` while a step runs."""

    def begin(self) -> None:
        """Take note of what is open before a step runs: that belongs to the user.

        While it runs ``plt.show()`` does nothing: what is open at its end is shown then, and may be the value.
        """
        self._before = _open_numbers()
        module = pyplot()
        if module is not None and self._show is None:
            self._show = module.show
            module.show = _shown_at_the_end

    def end(self) -> None:
        """Give ``plt.show()`` back."""
        module = pyplot()
        if module is not None and self._show is not None:
            module.show, self._show = self._show, None

    def show(self, value: Any) -> None:
        """Display the value of a last expression."""
        self._shown = figure_of(value)
        show(value)

    def opened(self) -> list[Any]:
        """Return the figures that were opened since."""
        module = pyplot()
        return (
            [module.figure(number) for number in sorted(_open_numbers() - self._before)] if module is not None else []
        )

    def settle(self, values: tuple[Any, ...]) -> None:
        """Show and close what a body opened.

        Parameters
        ----------
        values
            The body's values.
        """
        shown, self._shown = self._shown, None
        self.end()
        module = pyplot()
        if module is None:
            return
        opened = self.opened()
        for figure in opened:
            if figure is not shown:
                show_figure(figure)
            module.close(figure)
        for value in values:
            # A figure that pyplot still manages would open a window wherever it is loaded.
            if figure_of(value) is not None and value not in opened:
                module.close(value)


def _shown_at_the_end(*args: Any, **kwargs: Any) -> None:
    """Stand in for ``plt.show`` while a step runs."""
    del args, kwargs


def _open_numbers() -> frozenset[int]:
    module = pyplot()
    return frozenset(module.get_fignums()) if module is not None else frozenset()


def value_or_figure(value: Any, figures: Figures, tell: Callable[[str], None], name: str, *, must: bool = False) -> Any:
    """Return the value of a cell that does not assign its variable: of its last expression, or the one figure that it opened.

    Parameters
    ----------
    tell
        Is given a line where the value is None although figures are open, or just None.
    must
        Whether a cell without such a figure has no value.

    Raises
    ------
    CellValueError
        If a figure must be there, and none was opened.
    """
    if value is not None:
        figures.settle((value,))
        return value
    opened = figures.opened()
    if len(opened) == 1:
        figures.settle((opened[0],))
        return opened[0]
    figures.settle(())
    if must and not opened:
        raise CellValueError(
            f"the cell of {name!r} has no value",
            remedy=f"assign {name}, name the variable (%%asset {name} -> variable), or end the cell with the expression that is its value",
        )
    more = f": {len(opened)} figures are open; end the cell with the one that it is" if opened else ""
    tell(f"{name}: the cell ends without a value, so its value is None{more}")
    return None
