"""The content of mutable objects: recorded before a step runs, compared after the step, and restored in place on reuse.

When the content of an object is replaced in place, the object keeps its identity, so every variable that refers to the object sees the new
content. The content of a container is shallow: it lists the members, and the content of a mutable member is recorded separately. An object that
is not a container (an array, a frame, a random generator) is a *leaf*: it is compared by digest, and its content is replaced as a whole.
"""

from __future__ import annotations

import array
import collections
import io
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, TypeAlias

from stepwell.kernel_runtime.versions.classes import cached_names
from stepwell.kernel_runtime.versions.encode import ATOMS, IMMUTABLE
from stepwell.kernel_runtime.versions.ownership import is_local

Access: TypeAlias = tuple[str, Any]
"""Leads from an object to another object directly inside it, for example ``("item", key)``, ``("index", 0)`` or ``("attr", "layers")``."""
Address: TypeAlias = tuple[Access, ...]
"""Leads from the value of a variable to an object inside the value, with one `Access` for each level, from the outside to the inside."""

MOST_CONTAINERS = 50_000
"""The maximum number of containers inside the value of one variable. A value with more is treated as one leaf."""

_NO_CONTENT = (
    *ATOMS,
    *IMMUTABLE,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    MappingProxyType,
    ModuleType,
    frozenset,
    range,
    slice,
    property,
)
_ABSENT: Any = object()


class NotRestorableError(Exception):
    """Raised if the content of an object cannot be replaced in place."""


def has_content(item: Any) -> bool:
    """Return True if the type of an object allows changes in place."""
    kind = type(item)
    return kind not in _NO_CONTENT and not issubclass(kind, (type, *_NO_CONTENT))


def attribute(item: Any, name: str, default: Any = None) -> Any:
    """Return the attribute `name` of an object; `default` if the attribute does not exist or if access to it raises any exception."""
    try:
        return getattr(item, name, default)
    except Exception:
        return default


def can_change(item: Any) -> bool:
    """Return True if an object can change in place: an object with content, or a class or function of the notebook."""
    return has_content(item) or (isinstance(item, (type, FunctionType)) and item.__module__ == "__main__")


def is_iterator(item: Any) -> bool:
    """Return True for an object that changes even when code only reads it, such as a generator, an `itertools.count` or an open file."""
    return hasattr(type(item), "__next__")


def is_inert(item: Any) -> bool:
    """Return True for an object that a reuse need not restore, because it has no content (such as a lock) or never changes (such as a lazy query)."""
    kind = type(item)
    if kind.__module__.partition(".")[0] == "polars":
        return kind.__name__ in {"LazyFrame", "LazyGroupBy", "Expr"}
    return kind.__module__ in {"_thread", "threading", "_contextvars"} and kind is not ContextVar


def is_handle(item: Any) -> bool:
    """Return True for an object that stands for a resource outside the process, such as a file (open or closed) or a connection.

    The result is False for an instance of a class of the user: if it holds such a resource, the resource is a member of its content.
    """
    kind = type(item)
    if _leaf(item) is not None or is_local(str(kind.__module__)):
        return False
    return hasattr(kind, "__exit__") or kind.__module__.partition(".")[0] in {"_csv", "sqlite3", "_duckdb"}


def is_closed(handle: Any, *, ended: bool) -> bool:
    """Return True if code can use a file, connection or similar object no more, so that no cell needs to open it again.

    Parameters
    ----------
    ended
        True if the object was the variable of a ``with`` statement.
    """
    module = type(handle).__module__
    if module in ("sqlite3", "_duckdb"):
        # A cursor is closed with its connection. Whether a relation of duckdb can still be used is unknown.
        connection = attribute(handle, "connection") or handle
        if type(connection).__name__ == "Connection":
            return attribute(connection, "total_changes") is None
        return type(connection).__name__ == "DuckDBPyConnection" and database_state(connection) is None
    # A writer of csv can be used as long as its file is open, and the file is a variable, too.
    return attribute(handle, "closed") is True or module == "_csv" or (ended and module.partition(".")[0] in _ENDED)


_ENDED = frozenset("concurrent contextlib h5py httpx multiprocessing pandas socket tables tempfile tqdm zipfile".split())
"""Packages whose context managers cannot be used after their ``with`` statement. Most of these objects have no attribute ``closed``."""


def database_state(item: Any) -> str | None:
    """Return a string that describes the database of a sqlite3 or duckdb connection; None for a closed connection or any other object.

    After a change of the database, the function returns another string. There is one exception: if statements only updated rows of a duckdb
    database, the string stays the same. To detect such updates, callers search the strings in the step's code for the words in `CHANGING`.
    """
    kind = type(item).__module__
    try:
        if kind == "sqlite3":
            return f"{item.total_changes} {item.execute('PRAGMA schema_version').fetchone()}"
        if kind == "_duckdb":
            return str(item.cursor().execute(_TABLES).fetchall())
    except Exception:
        # The connection is closed or belongs to another thread, or the object is not a connection.
        return None
    return None


_TABLES = """
    SELECT database_name, schema_name, table_name, estimated_size, column_count::VARCHAR FROM duckdb_tables() WHERE NOT internal
    UNION ALL SELECT database_name, schema_name, view_name, 0, sql FROM duckdb_views() WHERE NOT internal ORDER BY ALL
"""
CHANGING = frozenset(
    "alter attach begin call copy create delete detach drop import insert install load merge pragma replace reset set truncate update use".split()
)
"""Words of SQL statements that change a database or a connection, in lower case."""


def is_leaf(item: Any) -> bool:
    """Return True if an object is compared by digest, because it is not a container of Python objects."""
    kind = type(item)
    if kind in _CONTAINERS or kind is tuple:
        return False
    # The attributes of an open file do not change when data is written to the file.
    return _leaf(item) is not None or issubclass(kind, io.IOBase) or _state_of(item) is None


def is_entangled(item: Any) -> bool:
    """Return True for an object that belongs to a matplotlib figure or a parsed HTML document.

    The objects of one figure or document all refer to each other, so they are compared as one leaf.
    """
    for name, base in (("matplotlib.artist", "Artist"), ("bs4.element", "PageElement")):
        module = sys.modules.get(name)
        if module is not None and issubclass(type(item), getattr(module, base)):
            return True
    return False


def members(item: Any) -> Iterator[tuple[Access, Any]]:
    """Yield a pair for each member of a container: the `Access` that leads to the member, and the member."""
    if issubclass(type(item), dict):
        for key, value in list(dict.items(item)):
            yield ("item", key), value
    elif issubclass(type(item), (list, tuple, collections.deque)):
        for position, value in enumerate(item):
            yield ("index", position), value
    if type(item) not in _CONTAINERS:
        for name, value in (_state_of(item) or {}).items():
            yield ("attr", name), value


def cells(item: Any) -> list[tuple[Access, Any]]:
    """Return a pair for each mutable object in a cell of an array, series or frame of pandas: the `Access` that leads to the object, and the object."""
    np, pd = sys.modules.get("numpy"), sys.modules.get("pandas")
    columns: list[Any] = []
    if np is not None and issubclass(type(item), np.ndarray):
        columns = [item.ravel()] if item.dtype == object else []
    elif pd is not None and issubclass(type(item), pd.Series):
        columns = [item.to_numpy()] if item.dtype == object else []
    elif pd is not None and issubclass(type(item), pd.DataFrame):
        columns = [item.iloc[:, place].to_numpy() if str(dtype) == "object" else () for place, dtype in enumerate(item.dtypes)]
    found: list[tuple[Access, Any]] = []
    for place, column in enumerate(columns):
        if any(map(has_content, {type(value): value for value in column}.values())):
            found += [(("cell", (row, place)), value) for row, value in enumerate(column) if has_content(value)]
    return found


def member(item: Any, access: Access) -> Any:
    """Return one member of the container `item`: the member to which `access` leads.

    Raises
    ------
    LookupError, AttributeError
        If the container has no such member.
    """
    kind, name = access
    if kind == "item":
        return dict.__getitem__(item, name)
    if kind == "index":
        return item[name]
    if kind == "cell":
        row, place = name
        return item.iat[row, place] if hasattr(item, "columns") else item.iat[row] if hasattr(item, "iat") else item.flat[row]
    value = (_state_of(item) or {}).get(name, _ABSENT)
    if value is _ABSENT:
        raise AttributeError(name)
    return value


def content(item: Any) -> tuple[Any, ...]:
    """Return the shallow content of a container: its members, for `same_content` and `put_content`."""
    kind = type(item)
    parts: list[Any] = []
    if issubclass(type(item), dict):
        kind_of_dict = collections.OrderedDict if issubclass(type(item), collections.OrderedDict) else dict
        parts.append(("items", tuple(kind_of_dict.items(item))))
        if issubclass(type(item), collections.defaultdict):
            parts.append(("factory", (item.default_factory,)))
    elif issubclass(type(item), (list, collections.deque)):
        parts.append(("list", tuple(item)))
    elif issubclass(type(item), set):
        parts.append(("set", tuple(item)))
    elif kind in {bytearray, array.array}:
        parts.append(("bytes", (bytes(item),)))
    if kind not in _CONTAINERS:
        state = _state_of(item)
        if state is not None:
            parts.append(("state", tuple(state.items())))
    return tuple(parts)


def same_content(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    """Return True if two results of `content` have the same members: identical objects, or equal numbers and strings."""
    if len(before) != len(after):
        return False
    for (kind, old), (other, new) in zip(before, after, strict=True):
        if kind != other or len(old) != len(new):
            return False
        if kind == "set":
            # Only numbers and strings are compared by value, because the comparison of other objects may raise an exception.
            plain = all(type(member) in ATOMS for member in (*old, *new))
            if {id(member) for member in old} != {id(member) for member in new} and not (plain and set(old) == set(new)):
                return False
        elif not all(_is_same(one, two) for one, two in zip(old, new, strict=True)):
            return False
    return True


def _is_same(one: Any, two: Any) -> bool:
    if one is two:
        return True
    kind = type(one)
    if kind is not type(two):
        return False
    if kind is tuple and len(one) == len(two):
        return all(_is_same(first, second) for first, second in zip(one, two, strict=True))
    return kind in ATOMS and bool(one == two)


def put_content(item: Any, parts: tuple[Any, ...]) -> None:
    """Replace the content of a container in place by `parts`, a result of `content`.

    Raises
    ------
    NotRestorableError
        If the container does not accept the content.
    """
    try:
        for kind, values in parts:
            if kind == "items":
                # An OrderedDict keeps the order of its keys in a separate list, which the methods of dict do not update.
                kind_of_dict = collections.OrderedDict if issubclass(type(item), collections.OrderedDict) else dict
                kind_of_dict.clear(item)
                for key, value in values:
                    kind_of_dict.__setitem__(item, key, value)
            elif kind == "factory":
                item.default_factory = values[0]
            elif kind == "list":
                item.clear()
                item.extend(values)
            elif kind == "set":
                set.clear(item)
                set.update(item, values)
            elif kind == "bytes":
                data = bytearray(values[0])
                if issubclass(type(item), bytearray):
                    item[:] = data
                else:
                    del item[:]
                    item.frombytes(bytes(data))
            elif kind == "state":
                _put_state(item, dict(values))
    except Exception as error:
        raise NotRestorableError(f"an object of type {type(item).__name__} cannot be restored: {error}") from error


def can_be_put(item: Any) -> bool:
    """Return True if the content of an object can be replaced in place."""
    return not is_entangled(item) and (not is_leaf(item) or _leaf(item) is not None)


# -- instances -------------------------------------------------------------------------------------------------------

_CONTAINERS = frozenset(
    {dict, list, set, bytearray, array.array, collections.deque, collections.OrderedDict, collections.defaultdict, collections.Counter}
)  # fmt: skip


_KEPT_BY_LIBRARY = ("_sa_instance_state", "_sa_adapter")
"""Attributes in which SQLAlchemy keeps track of an instance. They are neither compared nor replaced."""


def _state_of(item: Any) -> dict[str, Any] | None:
    """Return the attributes of an instance by name, including slots; None if the type keeps its state in native code."""
    kind = type(item)
    namespace = _namespace_of(item)
    state = None
    if type(namespace) is dict:
        cached = cached_names(kind)
        state = {name: value for name, value in namespace.items() if name not in _KEPT_BY_LIBRARY and name not in cached}
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name in {"__dict__", "__weakref__"}:
                continue
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{base.__name__.lstrip('_')}{name}"  # noqa: PLW2901 - the compiler mangles the name in this way
            descriptor = base.__dict__.get(name)
            try:
                value = descriptor.__get__(item, kind)  # type: ignore[union-attr]
            except AttributeError:
                continue
            state = {} if state is None else state
            state[name] = value
    if state is None and issubclass(type(item), (dict, list, set, collections.deque, bytearray)):
        return {}
    return state


def _namespace_of(item: Any) -> Any:
    """Return the ``__dict__`` of an instance, even if its class overrides this attribute; None if the instance has no ``__dict__``."""
    for base in type.__dict__["__mro__"].__get__(type(item)):
        descriptor = type.__dict__["__dict__"].__get__(base).get("__dict__")
        if type(descriptor) in {GetSetDescriptorType, MemberDescriptorType}:
            return descriptor.__get__(item)
    return None


def _put_state(item: Any, state: dict[str, Any]) -> None:
    now = _state_of(item) or {}
    namespace = _namespace_of(item)
    for name in now.keys() - state.keys():
        if type(namespace) is dict and name in namespace:
            del namespace[name]
        else:
            object.__delattr__(item, name)
    slots = now.keys() - (namespace.keys() if type(namespace) is dict else set())
    for name, value in state.items():
        if type(namespace) is dict and name not in slots:
            namespace[name] = value
        else:
            object.__setattr__(item, name, value)
    if type(namespace) is dict:
        # The order of attributes is visible in vars() and repr.
        ordered = [(name, namespace[name]) for name in (*_KEPT_BY_LIBRARY, *state) if name in namespace]
        namespace.clear()
        namespace.update(ordered)


# -- leaves ----------------------------------------------------------------------------------------------------------

_Get: TypeAlias = Callable[[Any], Any]
_Set: TypeAlias = Callable[[Any, Any], None]


def _set_array(item: Any, state: Any) -> None:
    if item.shape != state.shape or item.dtype != state.dtype:
        item.resize(state.shape, refcheck=False)
    item[...] = state


def _set_pandas(item: Any, state: Any) -> None:
    item.__setstate__(state.__getstate__())


def _set_names(item: Any, state: Any) -> None:
    # Only the names of an index can change.
    item.names = state


def _set_polars_frame(item: Any, state: Any) -> None:
    item._df = state._df  # noqa: SLF001 - polars has no public way to change a frame as a whole


def _set_polars_series(item: Any, state: Any) -> None:
    item._s = state._s  # noqa: SLF001 - as above


def _set_tensor(item: Any, state: Any) -> None:
    item.data = state


def _set_attributes(item: Any, state: Any) -> None:
    item.__dict__.clear()
    item.__dict__.update(state)


def _seeds_state(item: Any) -> Any:
    """Return the state of a numpy `SeedSequence`, which includes the number of spawned children; None for an object of another type."""
    if type(item).__name__ != "SeedSequence":
        return None
    return (item.entropy, item.spawn_key, item.pool_size, item.n_children_spawned)


def _set_seeds(item: Any, state: Any) -> None:
    if state is not None:
        entropy, key, size, children = state
        item.__init__(entropy, spawn_key=key, pool_size=size, n_children_spawned=children)


def _bit_generator_state(item: Any) -> Any:
    return item.state, _seeds_state(getattr(item, "seed_seq", None))


def _set_bit_generator(item: Any, state: Any) -> None:
    item.state, seeds = state
    _set_seeds(getattr(item, "seed_seq", None), seeds)


def _set_generator(item: Any, state: Any) -> None:
    _set_bit_generator(item.bit_generator, state)


def _buffer_state(item: Any) -> Any:
    return None if item.closed else (item.getvalue(), item.tell())


def _set_buffer(item: Any, state: Any) -> None:
    if state is None:
        item.close()
        return
    text, position = state
    item.seek(0)
    item.truncate()
    item.write(text)
    item.seek(position)


def _variable_state(item: ContextVar[Any]) -> Any:
    value = item.get(_ABSENT)
    return () if value is _ABSENT else (value,)


def _set_variable(item: ContextVar[Any], state: Any) -> None:
    for value in state:
        item.set(value)


_LEAVES: tuple[tuple[str, str, _Get, _Set], ...] = (
    ("random", "Random", lambda item: item.getstate(), lambda item, state: item.setstate(state)),
    ("io", "StringIO", _buffer_state, _set_buffer),
    ("io", "BytesIO", _buffer_state, _set_buffer),
    ("contextvars", "ContextVar", _variable_state, _set_variable),
    ("numpy", "ndarray", lambda item: item.view(), _set_array),
    ("numpy.random", "Generator", lambda item: _bit_generator_state(item.bit_generator), _set_generator),
    ("numpy.random", "RandomState", lambda item: item.get_state(), lambda item, state: item.set_state(state)),
    ("numpy.random", "BitGenerator", _bit_generator_state, _set_bit_generator),
    ("numpy.random", "SeedSequence", _seeds_state, _set_seeds),
    ("pandas", "DataFrame", lambda item: item.copy(deep=False), _set_pandas),
    ("pandas", "Series", lambda item: item.copy(deep=False), _set_pandas),
    ("pandas", "Index", lambda item: list(item.names), _set_names),
    ("polars", "DataFrame", lambda item: item.clone(), _set_polars_frame),
    ("polars", "Series", lambda item: item.clone(), _set_polars_series),
    ("torch", "Tensor", lambda item: item.detach(), _set_tensor),
    ("scipy.sparse", "sparray", lambda item: dict(vars(item)), _set_attributes),
    ("scipy.sparse", "spmatrix", lambda item: dict(vars(item)), _set_attributes),
)
"""The classes of leaves that can be changed in place: the module and name of each class, and the functions that return and set the state.

The state of a leaf is never the leaf itself: the store would then write only a link to the leaf in the notebook, and not its content.
"""


def _leaf(item: Any) -> tuple[_Get, _Set] | None:
    for module, name, get, set_ in _LEAVES:
        library = sys.modules.get(module)
        kind = getattr(library, name, None) if library is not None else None
        if isinstance(kind, type) and issubclass(type(item), kind):
            return get, set_
    return None


def leaf_state(item: Any) -> Any:
    """Return the state of a leaf, from which `put_leaf` can restore the leaf; None if the leaf cannot be changed in place."""
    leaf = _leaf(item)
    return leaf[0](item) if leaf is not None else None


def put_leaf(item: Any, state: Any) -> None:
    """Set a leaf in place to a state that `leaf_state` returned.

    Raises
    ------
    NotRestorableError
        If the leaf cannot be changed in place, or does not accept the state.
    """
    leaf = _leaf(item)
    if leaf is None:
        raise NotRestorableError(f"an object of type {type(item).__name__} cannot be changed in place")
    try:
        leaf[1](item, state)
    except Exception as error:
        raise NotRestorableError(f"an object of type {type(item).__name__} cannot be restored: {error}") from error
