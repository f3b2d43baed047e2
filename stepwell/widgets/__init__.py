"""Pictures of a session in the notebook: its lineage in a cell, live with the static picture as a second output, or the static one alone.

A saved widget has no picture of its own once its kernel is gone. So the static one is an output beside it. The widget's CSS
hides that while the live one is there; its own CSS hides the error that a front end shows where the live one is gone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepwell.commands.lineage import lineage_text, upstream_of
from stepwell.kernel_runtime.records.runs import Lineage
from stepwell.widgets.picture import static_bundle

if TYPE_CHECKING:
    from stepwell.kernel_runtime.session import Session
    from stepwell.widgets.lineage import LineageWidget

__all__ = ["forget", "lineage_text", "show", "static_bundle"]

_shown: dict[tuple[int, tuple[str, ...] | None], LineageWidget] = {}
# By the session's identity: a widget holds its session, so that the identity stays its own as long as the entry.


def show(session: Session, keys: Sequence[str] | None = None) -> LineageWidget | None:
    """Show the lineage of a session in the current cell.

    Parameters
    ----------
    session
        The session.
    keys
        Assets, steps and jobs that are shown with everything upstream of them; everything if None.

    Returns
    -------
    LineageWidget or None
        The widget, one for each session and selection however often it is shown; None outside a kernel, and in batch, where nobody
        could press anything: only the picture is shown.

    Raises
    ------
    UnknownKeyError
        If one of ``keys`` is in no card.
    """
    shell = _shell()
    if shell is None:
        print(lineage_text(upstream_of(session.inspect().lineage(), keys)))  # noqa: T201 - the caller asked to see it
        return None
    from IPython.display import display

    lineage = upstream_of(session.inspect().lineage(), keys)
    widget = None
    if hasattr(shell, "kernel") and not os.environ.get("STEPWELL_BATCH"):
        widget = _widget(session, keys, lineage)
        display(widget.live_bundle(), raw=True)  # type: ignore[no-untyped-call]
    display(static_bundle(lineage, beside=widget is not None), raw=True)  # type: ignore[no-untyped-call]
    return widget


def _shell() -> object | None:
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell: object | None = get_ipython()
    return shell


def _widget(session: Session, keys: Sequence[str] | None, lineage: Lineage) -> LineageWidget:
    from stepwell.widgets.lineage import LineageWidget

    name = (id(session), None if keys is None else tuple(keys))
    widget = _shown.get(name)
    if widget is None or widget.comm is None:
        widget = _shown[name] = LineageWidget(session, keys, lineage)
    else:
        widget.refresh(lineage)
    return widget


def forget(session: Session) -> None:
    """Close the widgets of a session that ends."""
    for name in [name for name in _shown if name[0] == id(session)]:
        _shown.pop(name).close()
