"""Functions that IPython calls to display differences between versions, and lists of versions, as HTML.

Strings from the user's values are escaped. Colours are those of JupyterLab's theme, with fixed colours for other front ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepwell.commands.diff import Difference, column_note, frame_notes, text_lines
from stepwell.kernel_runtime.session.differences import ArrayDifference, ObjectDifference, TextDifference
from stepwell.kernel_runtime.session.frame_differences import Example, FrameDifference
from stepwell.kernel_runtime.session.history import Versions
from stepwell.kernel_runtime.text import as_html, moment

_STYLE = (
    "<style>.stepwell-diff{font-size:13px}.stepwell-diff table{border-collapse:collapse;margin:4px 0 8px}"
    ".stepwell-diff td,.stepwell-diff th{padding:1px 10px 1px 0;text-align:left;vertical-align:top;border:0;background:none}"
    ".stepwell-diff th{font-weight:600;opacity:.65}.stepwell-diff .n{text-align:right;font-variant-numeric:tabular-nums}"
    ".stepwell-diff code,.stepwell-diff pre{font-size:12px;background:none;margin:0}"
    ".stepwell-diff .minus{color:var(--jp-error-color1,#b3261e)}.stepwell-diff .plus{color:var(--jp-success-color1,#1b7f3b)}"
    ".stepwell-diff .faint{opacity:.65}</style>"
)
_MOST_COLUMNS = 30
_MOST_LINES = 60


def install(shell: Any) -> None:
    """Register the HTML formatters of this module in IPython's shell."""
    formatter = shell.display_formatter.formatters["text/html"]
    for kind, function in _FORMATS:
        formatter.for_type(kind, function)


def remove(shell: Any) -> None:
    """Remove the HTML formatters of this module from IPython's shell."""
    formatter = shell.display_formatter.formatters["text/html"]
    for kind, _ in _FORMATS:
        formatter.pop(kind, None)


def difference_html(difference: Difference) -> str:
    """Return the difference between two versions as HTML: a summary, the two versions, and the changes."""
    details = difference.details
    body = ""
    if isinstance(details, FrameDifference):
        body = _frame(details)
    elif isinstance(details, ArrayDifference):
        body = _examples("position", details.examples)
    elif isinstance(details, ObjectDifference):
        body = _examples("where", details.changes[:_MOST_LINES])
        if len(details.changes) > _MOST_LINES or details.more:
            body += "<div class='faint'>and more</div>"
    elif isinstance(details, TextDifference):
        body = _text(details)
    sides = " → ".join(
        as_html(f"{side.id[:16]} {side.summary or side.type_name}") for side in (difference.before, difference.after)
    )
    return f"{_STYLE}<div class='stepwell-diff'><div><b>{as_html(difference.summary)}</b></div><div class='faint'>{sides}</div>{body}</div>"


def versions_html(versions: Versions) -> str:
    """Return a list of versions as an HTML table. If the list is long, the table leaves out the oldest versions, and a line below says how many."""
    rows = [
        (
            str(version.number),
            f"<code>{as_html(version.id[:16])}</code>",
            moment(version.created, exact=True),
            as_html(version.summary or version.type_name or "no value"),
            f"{version.size:,}",
            f"{version.seconds:.1f} s",
            as_html(version.notebook + (f" [{version.partition}]" if version.partition else "")),
            as_html(", ".join(_marks(version))),
        )
        for version in versions[:_MOST_LINES]
    ]
    more = f"<div class='faint'>and {len(versions) - _MOST_LINES:,} older</div>" if len(versions) > _MOST_LINES else ""
    head = ("", "version", "made", "value", "bytes", "took", "notebook", "")
    return f"{_STYLE}<div class='stepwell-diff'>{_table(head, rows)}{more}</div>"


def _marks(version: Any) -> list[str]:
    marks = ["current"] if version.current else []
    if version.times > 1:
        marks.append(f"{version.times} times")
    if version.accepted:
        marks.append("accepted")
    if not version.available:
        marks.append("value not available")
    return marks


def _frame(difference: FrameDifference) -> str:
    schema = [("+", name, kind, "plus") for name, kind in difference.schema.added]
    schema += [("-", name, kind, "minus") for name, kind in difference.schema.removed]
    parts = []
    if schema or difference.schema.retyped:
        rows = [
            (f"<span class='{css}'>{sign}</span>", f"<code>{as_html(name)}</code>", as_html(kind))
            for sign, name, kind, css in schema
        ]
        rows += [
            ("~", f"<code>{as_html(name)}</code>", f"{as_html(old)} → {as_html(new)}")
            for name, old, new in difference.schema.retyped
        ]
        parts.append(_table(("", "column", "type"), rows[:_MOST_COLUMNS]))
    cells: list[Sequence[str]] = []
    for column in difference.columns[:_MOST_COLUMNS]:
        example = column.examples[0] if column.examples else ("", "", "")
        cells.append(
            (
                f"<code>{as_html(column.name)}</code>",
                f"<span class='n'>{column.count:,}</span>",
                as_html(example[0]),
                _minus(as_html(example[1])),
                _plus(as_html(example[2])),
                f"<span class='faint'>{as_html(column_note(column))}</span>",
            )
        )
    if cells:
        parts.append(_table(("column", "cells changed", "for example", "before", "after", ""), cells))
    parts += [f"<div class='faint'>{as_html(note)}</div>" for note in frame_notes(difference)]
    return "".join(parts)


def _text(difference: TextDifference) -> str:
    lines = []
    for line in text_lines(difference, _MOST_LINES):
        css = "plus" if line.startswith("+") else "minus" if line.startswith("-") else ""
        lines.append(f"<span class='{css}'>{as_html(line)}</span>" if css else as_html(line))
    return f"<pre>{chr(10).join(lines)}</pre>"


def _examples(head: str, rows: Sequence[Example]) -> str:
    cells = [(f"<code>{as_html(place or 'value')}</code>", _minus(as_html(old)), _plus(as_html(new))) for place, old, new in rows]
    return _table((head, "before", "after"), cells)


def _minus(text: str) -> str:
    return f"<span class='minus'>{text}</span>" if text else ""


def _plus(text: str) -> str:
    return f"<span class='plus'>{text}</span>" if text else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


_FORMATS: tuple[tuple[type, Any], ...] = ((Difference, difference_html), (Versions, versions_html))
