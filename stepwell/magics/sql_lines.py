"""``%stepwell sql SELECT ...`` and ``%%stepwell sql``: rows of one SELECT over stored values or the catalog, as the cell's value.

Nothing is registered and nothing runs; ``%%sql_asset`` makes an asset of a SELECT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from IPython.core.error import UsageError

from stepwell.kernel_runtime.errors import CellNameError
from stepwell.kernel_runtime.session.selects import plain
from stepwell.kernel_runtime.store.sql.statements import read_statement
from stepwell.magics.face import Face


def rows(face: Face, line: Sequence[str], cell: str | None) -> Any:
    """Return the rows of a SELECT as the type of frame that ``%config Stepwell.frame`` names.

    Parameters
    ----------
    line
        What stands after ``sql``, as one string, if anything does.
    cell
        The body of a cell; None for a line.
    """
    text = plain("\n".join([*line, cell or ""]))
    if not text:
        raise UsageError("%stepwell sql SELECT ...: one SELECT over stored assets, or FROM stepwell.runs")
    statement = read_statement(text)
    return face.session.sql(
        text, parameters=_variables(face.namespace, statement.parameters), frame=face.settings.frame
    )


def _variables(namespace: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        if name not in namespace:
            raise CellNameError(
                f"the SELECT takes ${name}, but no variable is called {name!r}",
                remedy=f"run the cell that assigns {name} first",
            )
    return {name: namespace[name] for name in names}
