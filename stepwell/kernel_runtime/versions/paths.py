"""How a reader is told what is reached: ``target -> helper -> CONN``."""

from __future__ import annotations

from stepwell.kernel_runtime.versions.secrets import hidden_text

ARROW = " -> "
IGNORED = "(ignore)"
"""Ends the path of the part that lists the names which do not count."""
_MOST_STEPS = 12


def reached(path: str, label: str) -> str:
    """Return the path of what is called `label` in the thing at `path`.

    A name is a step of its own; an attribute, an item or a default belongs to the thing that has it. The middle of a
    long path is left out.
    """
    if not label:
        return path
    if label[0] in ".[(":
        # A key of a mapping may be anything, a token too.
        return path + (hidden_text(label) if label[0] == "[" else label)
    if path.count(ARROW) >= _MOST_STEPS:
        steps = path.split(ARROW)
        path = ARROW.join([*steps[:4], "..", *steps[-5:]])
    return path + ARROW + label
