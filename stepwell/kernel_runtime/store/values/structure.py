"""The structure of values: type and size in a few words for a reader, and whether offsets and indices of loaded data stay inside their memory.

Arrow, polars, pandas and scipy trust the offsets, views and indices of their arrays: they read wherever these point. A stored form is only as good as who
wrote it, and Arrow needs no signature. So a value whose file was not checked in this boot (`objects/checked`) is validated before
anybody uses it.

The cheapest check that suffices was measured with 5 million rows of integers, floats, texts and categories (165 MB): ``validate()``
of pyarrow takes no time and finds nothing that matters, ``validate(full=True)`` 143 ms, nearly all of it for the texts. polars has no check of its own, so
pyarrow reads its stream first (279 ms; polars itself takes 1,230). Pickles are checked as they are loaded: Arrow arrays when they are restored, sparse
matrices and codes of pandas afterwards, if the stream names any.
"""

from __future__ import annotations

import functools
import gc
import io
import pickle
import re
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from stepwell.kernel_runtime.records.materializations import Link

_LONGEST = 60
_MOST_SEEN = 100_000
_MODULE, _QUALNAME = type.__dict__["__module__"].__get__, type.__dict__["__qualname__"].__get__


def name_parts(kind: type) -> tuple[str, str]:
    """Return module and qualified name of a type, whatever its own attributes and those of its metaclass say."""
    try:
        module = _MODULE(kind)
    except AttributeError:
        module = ""
    return module if type(module) is str else "", str(_QUALNAME(kind))


def type_name(value: Any) -> str:
    """Return the type's name as its users write it: ``pandas.DataFrame``, ``int``."""
    kind = type(value)
    module, name = name_parts(kind)
    if module == "builtins":
        return name
    root = module.partition(".")[0].lstrip("_")
    if root != module and getattr(sys.modules.get(root), name, None) is kind:
        module = root
    # A class may have any text for its name; the catalog keeps what has a UTF-8.
    return f"{module}.{name}".encode("utf-8", "backslashreplace").decode()


def summary(value: Any) -> str:
    """Return the shape of a frame or array (rows × columns), the number of items, or a short literal."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex):
        try:
            return _short(repr(value))
        except ValueError:  # an int of more digits than Python prints
            return f"{value.bit_length():,} bits"
    if kind is str or kind is bytes:
        return _short(repr(value[: _LONGEST + 1]))
    if kind in (list, tuple, set, frozenset, dict):
        return f"{len(value):,} item" + ("" if len(value) == 1 else "s")
    try:
        shape = value.shape
        if type(shape) is tuple and all(type(each) is int for each in shape):
            return " × ".join(f"{each:,}" for each in shape)
        if name_parts(kind)[0].startswith("pyarrow"):
            return f"{len(value):,}"
    except KeyboardInterrupt:
        raise
    except BaseException:
        # A property of the user's class may raise anything: a summary is no reason to fail.
        return ""
    return ""


def path_to(value: Any, is_it: Callable[[Any], bool]) -> tuple[str, Any] | None:
    """Return where in a value the first object is that is meant, as one would write it (``[1]['a'].b``), and the object; None if it is not found."""
    queue: list[tuple[str, Any]] = [("", value)]
    seen = {id(value)}
    for path, item in queue:
        if is_it(item):
            return path, item
        if len(seen) > _MOST_SEEN:
            return None
        for label, member in _members(item):
            if id(member) not in seen:
                seen.add(id(member))
                queue.append((path + label, member))
    return None


def _members(item: Any) -> list[tuple[str, Any]]:
    kind = type(item)
    if issubclass(kind, dict):
        found = [(f"[{_literal(key)}]", member) for key, member in list(dict.items(item))[:_MOST_SEEN]]
        found += [(f"'s key {at}", key) for at, key in enumerate(list(dict.keys(item))[:_MOST_SEEN])]
    elif issubclass(kind, list | tuple):
        found = [
            (f"[{at}]", member)
            for at, member in enumerate(kind.__getitem__(item, slice(_MOST_SEEN)) if kind in {list, tuple} else ())
        ]
    elif issubclass(kind, set | frozenset):
        found = (
            [(f"'s member {at}", member) for at, member in enumerate(list(item)[:_MOST_SEEN])]
            if kind in {set, frozenset}
            else []
        )
    else:
        found = []
    if kind.__dictoffset__:
        try:
            space = object.__getattribute__(item, "__dict__")
        except Exception:
            return found
        if type(space) is dict:
            found += [(f".{name}", member) for name, member in list(space.items()) if type(name) is str]
    return found


def _literal(key: Any) -> str:
    return _short(repr(key)) if type(key) in {str, int, float, bool, bytes, type(None)} else "..."


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


Known = dict[tuple[str, str], Any]
"""What stands for some names in a pickle."""


class StructureError(ValueError):
    """Data whose offsets or indices point outside of it, or that would need more memory than it says."""


# -- Arrow -----------------------------------------------------------------------------------------------------------

_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2
"""Headers of messages, in Arrow's ``Message.fbs``."""
_COMPRESSION = 3
"""The place of the field in Arrow's ``RecordBatch`` table."""


def arrow_batches(data: Any) -> tuple[Any, list[Any]]:
    """Return the schema and the validated batches of an Arrow stream, as views of its memory.

    Raises
    ------
    StructureError, pyarrow.ArrowInvalid
        If it is not valid in full, or compressed: Stepwell compresses nothing, and a few bytes could claim any size.
    """
    import pyarrow as pa

    buffer = pa.py_buffer(data)
    for message in pa.ipc.MessageReader.open_stream(buffer):
        if _is_compressed(memoryview(message.metadata)):
            raise StructureError("it is compressed, which Stepwell never does")
    reader = pa.ipc.open_stream(buffer)
    batches = list(reader)
    for batch in batches:
        batch.validate(full=True)
    return reader.schema, batches


def _is_compressed(message: memoryview) -> bool:
    """Return whether the metadata of a message says that its body is compressed."""
    root = struct.unpack_from("<I", message)[0]
    kind = _field(message, root, 1)
    header = _field(message, root, 2)
    if not kind or not header:
        return False
    table = header + struct.unpack_from("<I", message, header)[0]
    if message[kind] == _DICTIONARY_BATCH:
        inner = _field(message, table, 1)
        if not inner:
            return False
        table = inner + struct.unpack_from("<I", message, inner)[0]
    elif message[kind] != _RECORD_BATCH:
        return False
    return bool(_field(message, table, _COMPRESSION))


def _field(message: memoryview, table: int, number: int) -> int:
    """Return where a field of a flatbuffer's table is, 0 if it is not there."""
    vtable = table - struct.unpack_from("<i", message, table)[0]
    if vtable < 0:
        raise StructureError("its metadata cannot be read")
    size = struct.unpack_from("<H", message, vtable)[0]
    place = 4 + 2 * number
    if place + 2 > size:
        return 0
    offset = struct.unpack_from("<H", message, vtable + place)[0]
    return table + offset if offset else 0


# -- pickles ---------------------------------------------------------------------------------------------------------

_CONCERNS = re.compile(rb"pyarrow|scipy|pandas")
_WATCHED = frozenset(("Categorical", "MultiIndex"))
_LEAVES = frozenset((int, float, str, bytes, bool, complex, type(None), bytearray))
_SCOPES = (type, FunctionType, BuiltinFunctionType, ModuleType, CodeType)


class Unpickler(pickle.Unpickler):
    """An unpickler that gives some names another meaning, and checks what is loaded.

    Parameters
    ----------
    known
        What stands for some names.
    check
        Whether the structure of what is loaded is checked.
    link
        Returns the object that a link means; None where a value has none.
    """

    def __init__(
        self, stream: bytes | memoryview, buffers: Sequence[Any], known: Known, *, check: bool, link: Link | None = None
    ) -> None:
        super().__init__(io.BytesIO(stream), buffers=buffers)
        self._known = known
        self._link = link
        self._check = check
        self._look = False

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name of the stream means."""
        found = self._known.get((module, name))
        if found is not None:
            return found
        found = super().find_class(module, name)
        if self._check:
            if name in _WATCHED or module.startswith("scipy.sparse"):
                self._look = True
            elif name == "_restore_array" and module.startswith("pyarrow"):
                return functools.partial(_restored, found)
        return found

    def persistent_load(self, found: Any) -> Any:
        """Return the object that a link means."""
        if self._link is None:
            raise pickle.UnpicklingError("the value refers to objects of a notebook")
        return self._link(found)

    def load(self) -> Any:
        """Return the value; a `StructureError` or ``pyarrow.ArrowInvalid`` if something in it points outside."""
        value = super().load()
        if self._look:
            check_reachable(value)
        return value


def loads(stream: bytes | memoryview, buffers: Sequence[Any], *, check: bool, link: Link | None = None) -> Any:
    """Return the value of a trusted pickle; errors as of `Unpickler.load`."""
    if link is not None:
        return Unpickler(stream, buffers, {}, check=check, link=link).load()
    if not check or not _CONCERNS.search(stream):
        return pickle.loads(stream, buffers=buffers)
    return Unpickler(stream, buffers, {}, check=True).load()


def _restored(restore: Callable[[Any], Any], data: Any) -> Any:
    array = restore(data)
    array.validate(full=True)
    return array


def check_reachable(value: Any) -> None:
    """Check every sparse matrix and every codes of pandas that a value holds; a `StructureError` if one is not valid."""
    seen: dict[int, Any] = {}
    queue = [value]
    checks = _checks()
    while queue:
        item = queue.pop()
        kind = type(item)
        if kind in _LEAVES or issubclass(kind, _SCOPES) or id(item) in seen:
            continue
        seen[id(item)] = item
        check = checks.get(kind)
        if check is not None:
            check(item)
        queue += gc.get_referents(item)
        if kind.__module__ == "numpy" and kind.__name__ == "ndarray" and item.dtype.hasobject:
            # Arrays do not show the collector what they hold.
            queue += item.ravel().tolist()


def _checks() -> dict[type, Callable[[Any], None]]:
    """Return by type what checks its objects; a type exists only if its library is imported."""
    found: dict[type, Callable[[Any], None]] = {}
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        found[pandas.Categorical] = _categorical
        found[pandas.MultiIndex] = _multi_index
    sparse = sys.modules.get("scipy.sparse")
    if sparse is not None:
        for kind, check in (
            ("csr", _compressed),
            ("csc", _compressed),
            ("bsr", _compressed),
            ("coo", _coordinates),
            ("dia", _diagonals),
        ):
            for form in ("matrix", "array"):
                cls = getattr(sparse, f"{kind}_{form}", None)
                if cls is not None:
                    found[cls] = check
    return found


def _within(numbers: Any, first: int, end: int, what: str) -> None:
    if len(numbers) and (numbers.min() < first or numbers.max() >= end):
        raise StructureError(f"{what} point outside")


def _categorical(value: Any) -> None:
    _within(value.codes, -1, len(value.categories), "codes of a pandas.Categorical")


def _multi_index(value: Any) -> None:
    for codes, level in zip(value.codes, value.levels, strict=True):
        _within(codes, -1, len(level), "codes of a pandas.MultiIndex")


def _compressed(value: Any) -> None:
    shape = [value.shape[-1]] if len(value.shape) == 1 else list(value.shape)
    rows, columns = (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
    if value.format == "bsr":
        height, width = value.data.shape[1:]
        if not height or not width:
            raise StructureError("a sparse matrix has blocks of no size")
        rows, columns = rows // height, columns // width
    major, minor = (columns, rows) if value.format == "csc" else (rows, columns)
    starts, indices = value.indptr, value.indices
    if starts.ndim != 1 or indices.ndim != 1 or len(starts) != major + 1:
        raise StructureError("a sparse matrix has not one start for each row")
    if starts[0] != 0 or (starts[1:] < starts[:-1]).any() or starts[-1] > min(len(indices), len(value.data)):
        raise StructureError("starts of rows of a sparse matrix point outside")
    _within(indices, 0, minor, "indices of a sparse matrix")


def _coordinates(value: Any) -> None:
    coordinates: Iterable[Any] = getattr(value, "coords", None) or (value.row, value.col)
    for numbers, end in zip(coordinates, value.shape, strict=True):
        if len(numbers) != len(value.data):
            raise StructureError("a sparse matrix has not one coordinate for each value")
        _within(numbers, 0, end, "coordinates of a sparse matrix")


def _diagonals(value: Any) -> None:
    if value.data.ndim != 2 or len(value.offsets) != len(value.data):
        raise StructureError("a sparse matrix has not one offset for each diagonal")
