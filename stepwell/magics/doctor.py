"""``%stepwell doctor``: checks the session's store; a line for each finding."""

from __future__ import annotations

from collections.abc import Sequence

from IPython.core.error import UsageError

from stepwell.magics.face import Face
from stepwell.magics.lines import say

_FLAGS = ("--quick", "--clean", "--rebuild")


def run_doctor(face: Face, words: Sequence[str]) -> None:
    """Check, and say what is found."""
    unknown = [word for word in words if word not in _FLAGS]
    if unknown:
        raise UsageError(f"%stepwell doctor has no {unknown[0]}; it has {', '.join(_FLAGS)}")
    for finding in face.session.doctor(
        full="--quick" not in words, clean="--clean" in words, rebuild="--rebuild" in words
    ):
        say(str(finding))
