"""``%%sql_asset``: one SELECT over assets becomes the definition of an asset."""

from __future__ import annotations

import difflib
from argparse import Namespace

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.errors import CellError, CellNameError
from stepwell.kernel_runtime.records.keys import AssetKey, as_asset_key
from stepwell.kernel_runtime.session.selects import read_select, select_asset, select_body
from stepwell.kernel_runtime.store.sql.statements import folded
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
    if (key.name in tables and key.name not in given) or str(key) in tables:
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
    inputs, _ = inputs_of(face, (name for name in tables if name.isidentifier()), (key,), given, where)
    for name in tables:
        if name in inputs:
            continue
        found = _whole_key(face, name, where)
        if found is None:
            variable = (
                f"{name} is a variable, not an asset: make it one (%%asset {name})"
                if name in face.namespace
                else _remedy(face, name)
            )
            raise CellNameError(
                f"the SELECT of {key.name!r} reads {name!r}, which is no asset", where=where, remedy=variable
            )
        inputs[name] = found
    return {name: inputs[name] for name in tables}


def _whole_key(face: Face, name: str, where: str) -> AssetKey | None:
    """Return the asset whose whole key, or last part in other capitals, a table's name is; None if there is none."""
    stored: list[str] = face.session.store.keys()
    known = [
        *face.session.registry.assets,
        *(each for each in stored if "." not in each and ":" not in each),
    ]
    if name in known:
        return as_asset_key(name)
    # SQL does not tell capitals apart.
    near = sorted({key for key in known if folded(name) in (folded(key), folded(key.rpartition("/")[2]))})
    if len(near) > 1:
        raise CellNameError(
            f"{name!r} could be {' or '.join(near)}", where=where, remedy=f'write the whole key: "{near[0]}"'
        )
    return as_asset_key(near[0]) if near else None


def _remedy(face: Face, name: str) -> str:
    known = sorted({*face.session.registry.assets, *face.session.store.keys()})
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    last = name.rpartition("/")[2]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"run the cell that defines {name} first, or name its key: --in {last}=KEY"
