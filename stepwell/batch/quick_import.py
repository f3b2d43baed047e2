"""nbformat without a grammar that it never uses.

nbformat validates with jsonschema, which builds the IRI grammar of ``rfc3987_syntax`` when it is imported, if that is installed
(JupyterLab brings it): two seconds for a format that the notebook's schema does not have. jsonschema treats the
package as optional, so it is hidden from it for as long as the import takes. Only the command line does this, in its own process.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_GRAMMAR = "rfc3987_syntax"


def import_nbformat() -> Any:
    """Return nbformat, imported quickly if it is not imported yet."""
    hide = _GRAMMAR not in sys.modules and "jsonschema" not in sys.modules
    if hide:
        # None in sys.modules is Python's own way to say "not there": the import raises ModuleNotFoundError.
        sys.modules[_GRAMMAR] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("nbformat")
    finally:
        if hide:
            del sys.modules[_GRAMMAR]
