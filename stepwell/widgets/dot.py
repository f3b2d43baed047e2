"""The Graphviz command: the ``dot`` on PATH or, where there is none, that of the ``graphviz-pure`` wheel.

The wheel installs a console program. It is found by the wheel's own list of files, because the kernel of a virtual
environment that was never activated does not have its ``bin`` on PATH.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import LayoutError

PATIENCE = 20.0
"""Seconds after which a layout is given up."""


def graphviz_json(dot: str) -> dict[str, Any]:
    """Lay out a graph with Graphviz.

    Parameters
    ----------
    dot
        A graph in the DOT language.

    Returns
    -------
    dict
        What ``dot -Tjson`` writes: lengths in points, y upwards.

    Raises
    ------
    LayoutError
        If there is no Graphviz, or it failed, or it took more than 20 s.
    """
    command = locate_graphviz()
    try:
        done = subprocess.run(  # noqa: S603 - a located program, its input on stdin
            [command, "-Kdot", "-Tjson"], input=dot.encode(), capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LayoutError(f"Graphviz took more than {PATIENCE:.0f} s", where=command) from error
    except OSError as error:
        raise LayoutError(f"Graphviz cannot be started: {error}", where=command, remedy=_REMEDY) from error
    if done.returncode:
        raise LayoutError(
            f"Graphviz ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()[:200]}",
            where=command,
        )
    try:
        drawing = json.loads(done.stdout)
    except ValueError as error:
        raise LayoutError("Graphviz answered with something else than JSON", where=command) from error
    if not isinstance(drawing, dict):
        raise LayoutError("Graphviz answered with something else than a graph", where=command)
    return drawing


_REMEDY = "install one: `pip install graphviz-pure`, or your system's graphviz package"


def locate_graphviz() -> str:
    """Return the path of the command.

    Raises
    ------
    LayoutError
        If neither ``dot`` nor ``graphviz-pure`` is installed.
    """
    command = shutil.which("dot") or shutil.which("graphviz-pure") or _of_the_wheel()
    if not command:
        raise LayoutError("Graphviz is not installed here", remedy=_REMEDY)
    return command


@lru_cache(maxsize=1)
def _of_the_wheel() -> str | None:
    from importlib.metadata import PackageNotFoundError, files

    try:
        installed = files("graphviz-pure") or []
    except PackageNotFoundError:
        return None
    for entry in installed:
        if entry.name in {"graphviz-pure", "graphviz-pure.exe"}:
            path = Path(str(entry.locate())).resolve()
            if path.is_file():
                return str(path)
    return None
