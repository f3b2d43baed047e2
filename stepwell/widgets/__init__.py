"""The lineage of a session in a cell: a live picture and a static one as a second output, or only the static one.

A saved widget shows nothing without its kernel, so the static picture is a separate output. The widget's CSS hides the static picture while the
live picture is shown. The CSS of the static picture hides the error that front ends show in place of a widget without a kernel.

===============  ===========================================================================
``lineage``      the live picture: events become states of cards, which are sent to the browser
``picture``      the static picture, as SVG
``layout``       positions of cards and edges
``differences``  differences of versions as HTML
===============  ===========================================================================
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

_shown_widgets: dict[tuple[int, tuple[str, ...] | None], LineageWidget] = {}
# The keys contain the `id()` of the session, which stays unique because the widget keeps its session alive.


def show(session: Session, keys: Sequence[str] | None = None) -> LineageWidget | None:
    """Show the lineage of a session in the current cell.

    Parameters
    ----------
    session
        The session.
    keys
        Assets, steps and jobs to show, with everything upstream of them; None for everything.

    Returns
    -------
    LineageWidget or None
        The widget; repeated calls with the same session and keys return the same widget. None in batch runs and outside of a kernel, where the
        static picture or text is shown.

    Raises
    ------
    UnknownKeyError
        If one of the keys has no card.
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
    display(static_bundle(lineage, is_extra=widget is not None), raw=True)  # type: ignore[no-untyped-call]
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
    widget = _shown_widgets.get(name)
    if widget is None or widget.comm is None:
        widget = _shown_widgets[name] = LineageWidget(session, keys, lineage)
    else:
        widget.refresh(lineage)
    return widget


def forget(session: Session) -> None:
    """Close the widgets of a session that ends."""
    for name in [name for name in _shown_widgets if name[0] == id(session)]:
        _shown_widgets.pop(name).close()
