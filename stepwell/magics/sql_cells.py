"""``%%sql_asset``: one SELECT over assets becomes the definition of an asset."""

from __future__ import annotations

import importlib.util
import re
from argparse import Namespace

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import SqlBody
from stepwell.kernel_runtime.definitions.declarations import In, Out
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.errors import CellError, CellNameError, CellSyntaxError
from stepwell.kernel_runtime.records.keys import AssetKey, as_asset_key
from stepwell.magics.cell_inputs import given_inputs, inputs_of, key_from
from stepwell.magics.cell_source import cell_text
from stepwell.magics.face import Face

_TEXT = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\$\$.*?\$\$|\$(\w+)\$.*?\$\1\$", re.DOTALL)
"""What holds no parameters: strings, quoted names, comments, dollar-quoted strings."""
_PARAMETER = re.compile(r"\$([A-Za-z_]\w*)")


def sql_asset_of(face: Face, arguments: Namespace, line: str, body: str) -> AssetsDefinition:
    """Make the definition of a ``%%sql_asset`` cell.

    Raises
    ------
    CellError
        If the cell cannot become an asset; nothing is registered then.
    """
    from stepwell.kernel_runtime.store.sql import canonical_sql, select_tables

    text = cell_text(face.shell, face.running, "sql_asset", line, body)
    key = key_from(arguments.name, arguments.key_prefix, text.where)
    if not body.strip():
        raise CellError(
            f"the cell of {key.name!r} is empty", where=text.where, remedy="write one SELECT below the magic's line"
        )
    statement = body.strip().rstrip(";")
    try:
        tables = select_tables(statement)
        canonical = canonical_sql(statement)
    except CellSyntaxError as error:
        raise CellSyntaxError(
            f"the cell of {key.name!r}: {error.what}",
            where=", ".join(part for part in (text.where, error.where) if part),
            remedy=error.remedy,
        ) from None
    given = given_inputs(arguments.inputs, text.where)
    if key.name in tables and key.name not in given:
        raise CellError(
            f"the SELECT of {key.name!r} reads {key.name!r}: the asset would depend on itself",
            where=text.where,
            remedy="give the asset another name than what it reads",
        )
    inputs = _inputs(face, tables, key, given, text.where)
    parameters = tuple(dict.fromkeys(_PARAMETER.findall(_TEXT.sub(" ", statement))))
    for name in parameters:
        if name not in face.namespace:
            raise CellNameError(
                f"the SELECT of {key.name!r} takes ${name}, but no variable is called {name!r}",
                where=text.where,
                remedy=f"run the cell that assigns {name} first",
            )
    made = SqlBody(
        key.name,
        statement,
        text.where,
        tuple(inputs),
        parameters,
        face.namespace,
        frame_type(face.settings.frame),
        canonical,
    )
    op = OpDefinition(
        "__".join(key.path),
        made,
        ins={name: In() for name in inputs},
        outs={"result": Out()},
        cache=False if arguments.no_cache else None,
        where=text.where,
    )
    return AssetsDefinition(
        op, kind="sql_asset", keys_by_input=inputs, keys_by_output={"result": key}, deps=[as_asset_key(dep) for dep in arguments.deps],
        group_names={key: arguments.group} if arguments.group else None, where=text.where, module="__main__",
    )  # fmt: skip


def _inputs(
    face: Face, tables: tuple[str, ...], key: AssetKey, given: dict[str, AssetKey], where: str
) -> dict[str, AssetKey]:
    inputs = inputs_of(face, (name for name in tables if name.isidentifier()), (key,), given, where)
    for name in tables:
        if name not in inputs:
            variable = (
                f"{name} is a variable, not an asset: make it one (%%asset {name})"
                if name in face.namespace
                else f"run the cell that defines {name} first, or name its key: --in {name.rpartition('.')[2]}=KEY"
            )
            raise CellNameError(
                f"the SELECT of {key.name!r} reads {name!r}, which is no asset", where=where, remedy=variable
            )
    return {name: upstream for name, upstream in inputs.items() if name in tables}


def frame_type(setting: str) -> str:
    """Return the type of frame that a SELECT gives: the setting, else pandas where it is installed, else pyarrow."""
    if setting != "auto":
        return setting
    return "pandas" if importlib.util.find_spec("pandas") is not None else "pyarrow"
