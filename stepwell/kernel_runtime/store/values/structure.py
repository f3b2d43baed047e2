"""The structure of values: type names and summaries for display, and validation of offsets and indices in loaded data.

Arrow, polars, pandas and scipy trust the offsets, views and indices of their arrays. Invalid offsets or indices make them read memory
outside of the array. Arrow data are not signed, so their writer is unknown. So a value whose file was not checked since the machine started
(`objects/checked`) is validated before it is used.

The cost of validation was measured with 5 million rows of integers, floats, strings and categories (165 MB). pyarrow's ``validate()`` takes
no time, but does not check offsets; ``validate(full=True)`` takes 143 ms, nearly all of this for strings. polars has no validation, so
pyarrow reads and validates the stream of a polars value first (279 ms; the load by polars takes 1,230 ms). In pickles, Arrow arrays are
validated when they are restored. Sparse matrices and codes of pandas are validated after the load, if the stream names their types.
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

_MAX_LENGTH = 60
_MAX_SEEN = 100_000
_MODULE, _QUALNAME = type.__dict__["__module__"].__get__, type.__dict__["__qualname__"].__get__


def name_parts(kind: type) -> tuple[str, str]:
    """Return the module and qualified name of a type without using attributes that the type or its metaclass overrides."""
    try:
        module = _MODULE(kind)
    except AttributeError:
        module = ""
    return module if type(module) is str else "", str(_QUALNAME(kind))


def type_name(value: Any) -> str:
    """Return the name of a value's type as users write it, such as ``pandas.DataFrame`` or ``int``."""
    kind = type(value)
    module, name = name_parts(kind)
    if module == "builtins":
        return name
    root = module.partition(".")[0].lstrip("_")
    if root != module and getattr(sys.modules.get(root), name, None) is kind:
        module = root
    # The name of a class may contain lone surrogates, which the catalog cannot store.
    return f"{module}.{name}".encode("utf-8", "backslashreplace").decode()


def summary(value: Any) -> str:
    """Return the shape of a value (rows × columns), its number of items, or a short literal; empty if none of these exists."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex):
        try:
            return _shortened(repr(value))
        except ValueError:  # an int with more digits than Python prints
            return f"{value.bit_length():,} bits"
    if kind is str or kind is bytes:
        return _shortened(repr(value[: _MAX_LENGTH + 1]))
    if kind in (list, tuple, set, frozenset, dict):
        return f"{len(value):,} item" + ("" if len(value) == 1 else "s")
    try:
        shape = value.shape
        if type(shape) is tuple and all(type(length) is int for length in shape):
            return " × ".join(f"{length:,}" for length in shape)
        if name_parts(kind)[0].startswith("pyarrow"):
            return f"{len(value):,}"
    except KeyboardInterrupt:
        raise
    except BaseException:
        # A property of the user's class may raise anything, which must not make the step fail.
        return ""
    return ""


def path_to(value: Any, matches: Callable[[Any], bool]) -> tuple[str, Any] | None:
    """Return the first matching object inside a value, after its path as Python code (``[1]['a'].b``); None if no object matches."""
    queue: list[tuple[str, Any]] = [("", value)]
    seen = {id(value)}
    for path, item in queue:
        if matches(item):
            return path, item
        if len(seen) > _MAX_SEEN:
            return None
        for label, member in _members(item):
            if id(member) not in seen:
                seen.add(id(member))
                queue.append((path + label, member))
    return None


def _members(item: Any) -> list[tuple[str, Any]]:
    kind = type(item)
    if issubclass(kind, dict):
        members = [(f"[{_literal(key)}]", member) for key, member in list(dict.items(item))[:_MAX_SEEN]]
        members += [(f"'s key {number}", key) for number, key in enumerate(list(dict.keys(item))[:_MAX_SEEN])]
    elif issubclass(kind, list | tuple):
        members = [
            (f"[{number}]", member)
            for number, member in enumerate(kind.__getitem__(item, slice(_MAX_SEEN)) if kind in {list, tuple} else ())
        ]
    elif issubclass(kind, set | frozenset):
        members = (
            [(f"'s member {number}", member) for number, member in enumerate(list(item)[:_MAX_SEEN])]
            if kind in {set, frozenset}
            else []
        )
    else:
        members = []
    if kind.__dictoffset__:
        try:
            space = object.__getattribute__(item, "__dict__")
        except Exception:
            return members
        if type(space) is dict:
            members += [(f".{name}", member) for name, member in list(space.items()) if type(name) is str]
    return members


def _literal(key: Any) -> str:
    return _shortened(repr(key)) if type(key) in {str, int, float, bool, bytes, type(None)} else "..."


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"


Known = dict[tuple[str, str], Any]
"""Replacements of names in a pickle, by module and name."""


class StructureError(ValueError):
    """Raised if offsets or indices in data are out of range, or the data are compressed."""


# -- Arrow -----------------------------------------------------------------------------------------------------------

_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2
"""Numbers of message headers in Arrow's ``Message.fbs``."""
_COMPRESSION = 3
"""Number of the field in Arrow's ``RecordBatch`` table."""


def arrow_batches(data: Any) -> tuple[Any, list[Any]]:
    """Return the schema and the validated batches of an Arrow stream, as views of its memory.

    Compressed streams are refused: Stepwell does not write them, and a few compressed bytes could expand to any size.

    Parameters
    ----------
    data
        A buffer with the stream.

    Returns
    -------
    schema
        A ``pyarrow.Schema``.
    batches
        A list of ``pyarrow.RecordBatch``.

    Raises
    ------
    StructureError, pyarrow.ArrowInvalid
        If the stream is invalid or compressed.
    """
    import pyarrow as pa

    buffer = pa.py_buffer(data)
    for message in pa.ipc.MessageReader.open_stream(buffer):
        if _is_compressed(memoryview(message.metadata)):
            raise StructureError("the data is compressed, and Stepwell never compresses")
    reader = pa.ipc.open_stream(buffer)
    batches = list(reader)
    for batch in batches:
        batch.validate(full=True)
    return reader.schema, batches


def _is_compressed(message: memoryview) -> bool:
    """Return True if the body of a message is compressed, according to its metadata."""
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
    """Return the offset of a field in a table of a flatbuffer; 0 if the field is absent."""
    vtable = table - struct.unpack_from("<i", message, table)[0]
    if vtable < 0:
        raise StructureError("the metadata cannot be read")
    size = struct.unpack_from("<H", message, vtable)[0]
    entry = 4 + 2 * number
    if entry + 2 > size:
        return 0
    offset = struct.unpack_from("<H", message, vtable + entry)[0]
    return table + offset if offset else 0


# -- pickles ---------------------------------------------------------------------------------------------------------

_CHECKED_LIBRARIES = re.compile(rb"pyarrow|scipy|pandas")
_WATCHED = frozenset(("Categorical", "MultiIndex"))
_LEAVES = frozenset((int, float, str, bytes, bool, complex, type(None), bytearray))
_SCOPES = (type, FunctionType, BuiltinFunctionType, ModuleType, CodeType)


class Unpickler(pickle.Unpickler):
    """An unpickler that replaces names and validates the loaded data.

    Parameters
    ----------
    stream, buffers
        The pickle.
    known
        Replacements of names.
    check
        True to validate the structure of the loaded data.
    link
        Returns the object to which a link refers; None if the value has no links.
    """

    def __init__(
        self, stream: bytes | memoryview, buffers: Sequence[Any], known: Known, *, check: bool, link: Link | None = None
    ) -> None:
        super().__init__(io.BytesIO(stream), buffers=buffers)
        self._replacements = known
        self._link = link
        self._check = check
        self._needs_check = False

    def find_class(self, module: str, name: str) -> Any:
        """Return the object to which a name in the stream refers."""
        target = self._replacements.get((module, name))
        if target is not None:
            return target
        target = super().find_class(module, name)
        if self._check:
            if name in _WATCHED or module.startswith("scipy.sparse"):
                self._needs_check = True
            elif name == "_restore_array" and module.startswith("pyarrow"):
                return functools.partial(_restored_array, target)
        return target

    def persistent_load(self, pid: Any) -> Any:
        """Return the object to which a link refers."""
        if self._link is None:
            raise pickle.UnpicklingError("the value refers to objects of a notebook")
        return self._link(pid)

    def load(self) -> Any:
        """Return the value; raise `StructureError` or ``pyarrow.ArrowInvalid`` if it contains invalid offsets or indices."""
        value = super().load()
        if self._needs_check:
            check_reachable(value)
        return value


def loads(stream: bytes | memoryview, buffers: Sequence[Any], *, check: bool, link: Link | None = None) -> Any:
    """Return the value of a trusted pickle; raise the errors of `Unpickler.load`."""
    if link is not None:
        return Unpickler(stream, buffers, {}, check=check, link=link).load()
    if not check or not _CHECKED_LIBRARIES.search(stream):
        return pickle.loads(stream, buffers=buffers)
    return Unpickler(stream, buffers, {}, check=True).load()


def _restored_array(restore: Callable[[Any], Any], data: Any) -> Any:
    array = restore(data)
    array.validate(full=True)
    return array


def check_reachable(value: Any) -> None:
    """Validate the sparse matrices and the codes of pandas in a value; raise `StructureError` if an index or code is invalid."""
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
            # Arrays do not report their items to the garbage collector.
            queue += item.ravel().tolist()


def _checks() -> dict[type, Callable[[Any], None]]:
    """Return the validating functions by type. Types of libraries that are not imported cannot occur in a value, and are omitted."""
    checks: dict[type, Callable[[Any], None]] = {}
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        checks[pandas.Categorical] = _categorical
        checks[pandas.MultiIndex] = _multi_index
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
                    checks[cls] = check
    return checks


def _check_range(numbers: Any, first: int, end: int, label: str) -> None:
    if len(numbers) and (numbers.min() < first or numbers.max() >= end):
        raise StructureError(f"{label} are out of range")


def _categorical(value: Any) -> None:
    _check_range(value.codes, -1, len(value.categories), "codes of a pandas.Categorical")


def _multi_index(value: Any) -> None:
    for codes, level in zip(value.codes, value.levels, strict=True):
        _check_range(codes, -1, len(level), "codes of a pandas.MultiIndex")


def _compressed(value: Any) -> None:
    shape = [value.shape[-1]] if len(value.shape) == 1 else list(value.shape)
    rows, columns = (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
    if value.format == "bsr":
        height, width = value.data.shape[1:]
        if not height or not width:
            raise StructureError("a sparse matrix has blocks of size zero")
        rows, columns = rows // height, columns // width
    major, minor = (columns, rows) if value.format == "csc" else (rows, columns)
    starts, indices = value.indptr, value.indices
    if starts.ndim != 1 or indices.ndim != 1 or len(starts) != major + 1:
        raise StructureError("a sparse matrix does not have one start for each row")
    if starts[0] != 0 or (starts[1:] < starts[:-1]).any() or starts[-1] > min(len(indices), len(value.data)):
        raise StructureError("starts of rows of a sparse matrix are out of range")
    _check_range(indices, 0, minor, "indices of a sparse matrix")


def _coordinates(value: Any) -> None:
    coordinates: Iterable[Any] = getattr(value, "coords", None) or (value.row, value.col)
    for numbers, end in zip(coordinates, value.shape, strict=True):
        if len(numbers) != len(value.data):
            raise StructureError("a sparse matrix does not have one coordinate for each value")
        _check_range(numbers, 0, end, "coordinates of a sparse matrix")


def _diagonals(value: Any) -> None:
    if value.data.ndim != 2 or len(value.offsets) != len(value.data):
        raise StructureError("a sparse matrix does not have one offset for each diagonal")
