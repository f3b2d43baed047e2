"""``%%sql_asset``: one SELECT over assets becomes the definition of an asset."""

from __future__ import annotations

from argparse import Namespace

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.errors import CellError, CellNameError
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.session.selects import read_select, select_asset, select_body
from stepwell.magics.cell_inputs import given_deps, given_inputs, inputs_of, key_from
from stepwell.magics.cell_source import cell_text
from stepwell.magics.face import Face


def sql_asset_of(face: Face, arguments: Namespace, line: str, body: str) -> AssetsDefinition:
    """Make the definition of a ``%%sql_asset`` cell.

    Raises
    ------
    CellError
        If the cell cannot become an asset; nothing is registered then.
    """
    text = cell_text(face.shell, face.running, "sql_asset", line, body)
    key = key_from(arguments.name, arguments.key_prefix, text.where)
    if not body.strip():
        raise CellError(
            f"the cell of {key.name!r} is empty", where=text.where, remedy="write one SELECT below the magic's line"
        )
    select = read_select(f"the cell of {key.name!r}", body, text.where)
    tables = select.tables
    given = given_inputs(arguments.inputs, text.where)
    if key.name in tables and key.name not in given:
        raise CellError(
            f"the SELECT of {key.name!r} reads {key.name!r}: the asset would depend on itself",
            where=text.where,
            remedy="give the asset another name than what it reads",
        )
    inputs = _inputs(face, tables, key, given, text.where)
    for name in select.parameters:
        if name not in face.namespace:
            raise CellNameError(
                f"the SELECT of {key.name!r} takes ${name}, but no variable is called {name!r}",
                where=text.where,
                remedy=f"run the cell that assigns {name} first",
            )
    body_of = select_body(select, key, inputs, face.namespace, frame=face.settings.frame, where=text.where)
    return select_asset(
        key,
        body_of,
        inputs,
        deps=given_deps(face, arguments.deps, (key,), text.where),
        group=arguments.group or None,
        cache=False if arguments.no_cache else None,
        volatile=arguments.volatile,
        max_age=arguments.max_age,
        ignore=",".join(arguments.ignore),
        where=text.where,
        module="__main__",
    )


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
