"""SQL assets: one SELECT over assets becomes a definition, in a cell as in a script."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, CoercibleToAssetDep, dep_keys
from stepwell.kernel_runtime.definitions.bodies import SqlBody
from stepwell.kernel_runtime.definitions.declarations import In, MaxAge, Out
from stepwell.kernel_runtime.definitions.jobs import runner
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.definitions.signatures import place
from stepwell.kernel_runtime.errors import CellError, CellNameError, CellSyntaxError
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key, prefixed
from stepwell.kernel_runtime.session.sql import FRAMES, frame_type


@dataclass(frozen=True, slots=True)
class Select:
    """One SELECT as the parser understands it.

    Attributes
    ----------
    text
        The statement as typed, without the semicolon.
    tables
        The tables that it names, in the order of the text, written as keys: ``raw/flights`` for ``raw.flights``. Of spellings that
        differ in capitals only the first.
    parameters
        Names of its ``$name`` parameters.
    canonical
        What its code version digests.
    """

    text: str
    tables: tuple[str, ...]
    parameters: tuple[str, ...]
    canonical: str


def read_select(what: str, text: str, where: str) -> Select:
    """Read the text of a SQL asset, which messages call `what`.

    Raises
    ------
    CellSyntaxError
        If it is not exactly one SELECT.
    """
    from stepwell.kernel_runtime.store.sql.catalog_views import catalog_view
    from stepwell.kernel_runtime.store.sql.statements import folded, read_statement

    statement = plain(text)
    try:
        found = read_statement(statement)
    except CellSyntaxError as error:
        raise CellSyntaxError(
            f"{what}: {error.what}",
            where=", ".join(part for part in (where, error.where) if part),
            remedy=error.remedy,
        ) from None
    tables: dict[str, str] = {}
    for path in found.tables:
        if catalog_view(path):
            raise CellError(
                f"{what} reads the catalog ({'.'.join(path)}), which changes with every run",
                where=where,
                remedy="look at it with %stepwell sql, or stepwell.sql(...)",
            )
        written = "/".join(path)
        tables.setdefault(folded(written), written)
    return Select(statement, tuple(tables.values()), found.parameters, found.canonical)


def plain(text: str) -> str:
    """Return the text of a statement without the semicolons at its end."""
    return text.strip().rstrip("; \n\t")


def select_body(
    select: Select, key: AssetKey, inputs: Iterable[str], variables: dict[str, Any], *, frame: str, where: str
) -> SqlBody:
    """Return what executes a SELECT.

    Parameters
    ----------
    inputs
        The tables that are assets.
    variables
        Where its ``$name`` parameters are looked up when it runs: the notebook's namespace, live, or given values.
    frame
        The type of the result: ``pandas``, ``pyarrow``, ``polars``, or ``auto``.
    """
    return SqlBody(
        key.name,
        select.text,
        where,
        tuple(inputs),
        select.parameters,
        variables,
        frame_type(frame, FRAMES[:-1]),
        select.canonical,
    )


def sql_asset(
    name: str,
    text: str,
    *,
    key_prefix: str | Sequence[str] | None = None,
    ins: Mapping[str, CoercibleToAssetKey] | None = None,
    deps: Iterable[CoercibleToAssetDep] | None = None,
    parameters: Mapping[str, Any] | None = None,
    frame: str = "auto",
    group_name: str | None = None,
    description: str | None = None,
    cache: bool | None = None,
    volatile: bool = False,
    max_age: MaxAge = None,
) -> AssetsDefinition:
    """Make an asset of one SELECT; the tables that it names are the upstream assets.

    Parameters
    ----------
    name, key_prefix
        The asset's key.
    text
        One SELECT in DuckDB's dialect. White space and comments do not count in its code version.
    ins
        Which asset a table is, where that is not its name.
    deps
        Upstreams that are not read: they only come first.
    parameters
        Values of ``$name`` in the text.
    frame
        The type of the result: ``pandas``, ``pyarrow``, ``polars``, or ``auto`` (pandas where it is installed).
    group_name, description, cache, volatile, max_age
        As in `asset`.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT.
    InvalidInvocationError
        If there is no such type of frame.
    CellNameError
        If a parameter has no value, or a table's name cannot be an asset's.
    CellError
        If the asset would depend on itself.
    """
    caller = sys._getframe(1)  # noqa: SLF001 - where the definition is, as a decorator knows from its function
    where = place(caller.f_code.co_filename, caller.f_lineno)
    key = prefixed(key_prefix, name)
    select = read_select(f"the SELECT of {key.name!r}", text, where)
    values = dict(parameters or {})
    for missing in select.parameters:
        if missing not in values:
            raise CellNameError(
                f"the SELECT of {key.name!r} takes ${missing}, which has no value",
                where=where,
                remedy=f"parameters={{{missing!r}: ...}}",
            )
    given = {table: as_asset_key(upstream) for table, upstream in (ins or {}).items()}
    inputs = {table: given.get(table) or _key_of(table, key, where) for table in select.tables}
    made = select_asset(
        key, select_body(select, key, inputs, values, frame=frame, where=where), inputs, deps=dep_keys(deps), group=group_name,
        cache=cache, volatile=volatile, max_age=max_age, where=where, module=str(caller.f_globals.get("__name__", "")),
        description=description,
    )  # fmt: skip
    if made.module == "__main__":
        runner().register(made)
    return made


def select_asset(
    key: AssetKey,
    body: SqlBody,
    inputs: Mapping[str, AssetKey],
    *,
    where: str,
    module: str,
    deps: Iterable[AssetKey] = (),
    group: str | None = None,
    description: str | None = None,
    cache: bool | None = None,
    volatile: bool = False,
    max_age: MaxAge = None,
    ignore: Iterable[str] | str | None = None,
) -> AssetsDefinition:
    """Return the definition of a SQL asset; it is not registered.

    Raises
    ------
    CellError
        If it would depend on itself.
    """
    if key in inputs.values():
        raise CellError(
            f"the SELECT of {key.name!r} reads {key.name!r}: the asset would depend on itself",
            where=where,
            remedy="give the asset another name than what it reads",
        )
    op = OpDefinition(
        "__".join(key.path), body, ins={name: In() for name in inputs}, outs={"result": Out()}, cache=cache,
        volatile=volatile, max_age=max_age, ignore=ignore, where=where,
    )  # fmt: skip
    return AssetsDefinition(
        op, kind="sql_asset", keys_by_input=dict(inputs), keys_by_output={"result": key}, deps=tuple(deps),
        group_names={key: group} if group else None, descriptions={key: description or ""}, where=where, module=module,
    )  # fmt: skip


def _key_of(table: str, key: AssetKey, where: str) -> AssetKey:
    if not all(part.isidentifier() for part in table.split("/")):
        raise CellNameError(
            f"the SELECT of {key.name!r} reads {table!r}, which is no asset's name",
            where=where,
            remedy=f"name its key: ins={{{table!r}: AssetKey([...])}}",
        )
    return as_asset_key(table)
