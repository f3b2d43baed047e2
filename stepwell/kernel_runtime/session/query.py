"""SELECTs over stored values, and over the catalog: ``stepwell.sql``, ``%stepwell sql``, ``stepwell sql``.

A table's name is a key in any spelling that means exactly one: ``clean``, ``"raw/flights"`` or ``raw.flights``, ``flights`` where no other
key ends so, with other capitals where no other key has them. It is read as `load` reads it: what is current, and inside a step as an
input of that step. Names of the schema ``stepwell`` are views of the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.errors import AmbiguousKeyError, QueryError, ValueUnavailableError
from stepwell.kernel_runtime.reads import active
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.session.session import Session
from stepwell.kernel_runtime.session.sql import frame_type, plain, rows_as, surroundings

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

_Path = tuple[str, ...]


def query(
    session: Session,
    text: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    frame: str = "auto",
    store: AnyStore = None,
    notebook: str | None = None,
) -> Any:
    """Run one SELECT over stored values and return its rows; parameters and errors as of the command ``sql``."""
    from stepwell.kernel_runtime.store.sql import catalog_views
    from stepwell.kernel_runtime.store.sql.select import Scope
    from stepwell.kernel_runtime.store.sql.statements import read_statement

    kind = frame_type(frame)
    step = active()
    used = session.open(store, create=False)

    def load(key: str) -> Any:
        try:
            # A step remembers whether the caller named a store.
            return session.load(key, notebook=notebook, store=None if store is None else used)
        except AmbiguousKeyError as error:
            remedy = error.remedy.replace(f"stepwell.load({key!r}, ", "stepwell.sql(..., ")
            raise AmbiguousKeyError(error.what, where=error.where, remedy=remedy) from None

    statement = read_statement(plain(text))
    tables: dict[_Path, Any] = {}
    views: dict[_Path, str] = {}
    loaded: dict[str, Any] = {}
    for path in statement.tables:
        view = catalog_views.catalog_view(path)
        if view is not None:
            views[path] = view
            continue
        key, value = _table(path, load, session.registry.assets, used)
        # Two spellings of one key are one table.
        tables[path] = loaded.setdefault(key, value)
    shapes: dict[_Path, str] = {}
    if views:
        if step is not None:
            step.not_seen("stepwell.sql", "the catalog of the store")
        sources = used.catalog.ask(catalog_views.read_sources, catalog_views.sources_of(views.values()))
        tables |= {(catalog_views.source_table(name),): table for name, table in sources.items()}
        shapes = {path: catalog_views.shape(view) for path, view in views.items()}
    around = surroundings(used.directory, session.namespace)
    return rows_as(kind, statement.text, Scope(tables, parameters or {}, shapes=shapes), around)


def _table(path: _Path, load: Callable[[str], Any], registered: Collection[str], store: ValueStore) -> tuple[str, Any]:
    """Return the key that a table's name means, and its value."""
    from stepwell.kernel_runtime.store.sql.catalog_views import VIEWS
    from stepwell.kernel_runtime.store.sql.select import missing_table

    written = "/".join(path)
    try:
        # Nearly always the name is the key: one question to the catalog.
        return written, load(written)
    except ValueUnavailableError:
        if written in registered or store.current(written):
            raise
    known = store.keys()
    key = key_meant(path, known)
    if key is None:
        raise missing_table(path, sorted({*known, *registered, *(f"stepwell.{name}" for name in VIEWS)}))
    return key, load(key)


def key_meant(path: _Path, known: Iterable[str]) -> str | None:
    """Return the only key that a table's name can mean, or None: a step's, the last part of one, one in other capitals.

    Raises
    ------
    QueryError
        If it could be several.
    """
    from stepwell.kernel_runtime.store.sql.statements import folded

    whole = {folded("/".join(path)), folded(".".join(path))}
    name = path[-1] if len(path) == 1 else None
    keys = list(known)
    assets = {key: key.rpartition("/")[2] for key in keys if "." not in key and ":" not in key}
    for found in (
        [key for key in keys if key == ".".join(path)],
        [key for key, last in assets.items() if last == name],
        [key for key in keys if folded(key) in whole],
        [key for key, last in assets.items() if name is not None and folded(last) == folded(name)],
    ):
        if len(found) > 1:
            raise QueryError(
                f"{'.'.join(path)!r} could be {' or '.join(sorted(found))}",
                remedy=f'write the whole key: "{min(found)}"',
            )
        if found:
            return found[0]
    return None
