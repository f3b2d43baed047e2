"""The output of ``%lineage``: a live picture, which is a widget, and a static picture. In a batch run, only the static picture is shown.

In a saved notebook, a widget cannot be shown without its kernel. Therefore the static picture is a separate output. While the live picture is shown,
the CSS of the widget hides the static picture. Without a kernel, front ends show an error in place of the widget, and the CSS of the static picture
hides this error.

===============  ===========================================================================
``lineage``      the live picture: the events of a run change the states of cards, which are sent to the browser
``picture``      the picture as SVG
``layout``       the positions of the cards and the paths of the arrows
``differences``  the differences between versions, and lists of versions, as HTML
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
"""Maps the `id` of a session and the argument `keys` of `show` to the widget. The `id` stays unique, because a widget keeps its session alive."""


def show(session: Session, keys: Sequence[str] | None = None) -> LineageWidget | None:
    """Show the lineage of a session below the current cell.

    Parameters
    ----------
    session
        The session.
    keys
        The keys of the assets, steps and jobs to show together with everything upstream of them; None for everything.

    Returns
    -------
    LineageWidget or None
        The widget with the live picture; repeated calls with the same session and keys return the same widget. None if there is no live picture: in
        a batch run and in IPython without a kernel, only the static picture is shown; outside of IPython, the lineage is printed as text.

    Raises
    ------
    UnknownKeyError
        If one of the keys is not the key of an asset, step or job in the lineage.
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
    """Close the widgets of `session`, which is being closed."""
    for name in [name for name in _shown_widgets if name[0] == id(session)]:
        _shown_widgets.pop(name).close()
