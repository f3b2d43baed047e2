"""The structure of values: type names and summaries for display, and validation of offsets and indices in loaded data.

Arrow, polars, pandas and scipy trust the offsets and indices in their arrays. If an offset or index is invalid, these libraries read memory
outside of the array. Arrow and polars data are not signed, so anyone may have written them. So a load validates the data, unless they come
from a file that was checked since the machine started (`objects/checked`).

Arrow data are validated by pyarrow's ``validate(full=True)``, because ``validate()`` does not check offsets. polars has no validation, so
pyarrow reads and validates the stream of a polars value before polars reads it. In pickles, Arrow arrays are validated when pickle restores
them. Sparse matrices of scipy, and the codes of pandas categoricals and multi-indexes, are validated after the load, if the pickle names
their types. For 5 million rows of integers, floats, strings and categories (165 MB), ``validate(full=True)`` takes 143 ms, nearly all of this
for strings. For a polars frame of the same size, the validation takes 279 ms, and the load by polars 1,230 ms.
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
    """Return the module and the qualified name of a type, even if the type or its metaclass overrides ``__module__`` or ``__qualname__``."""
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
    """Return a short description of a value for display.

    This is the shape of an array or frame (``1,000 × 3``), the number of items of a collection (``2 items``), or the literal of a scalar or
    string, shortened if necessary. The description of any other value is empty.
    """
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
        # A property of the user's class may raise any exception. This must not make the step fail.
        return ""
    return ""


def path_to(value: Any, matches: Callable[[Any], bool]) -> tuple[str, Any] | None:
    """Search a value and the objects inside it, breadth first, for the first object that matches.

    Parameters
    ----------
    value
        The value.
    matches
        Called with an object; returns True if the object matches.

    Returns
    -------
    tuple or None
        The path to the object inside the value, such as ``[1]['a'].b`` (empty if the value itself matches), and the object. None if no object
        matches; the search ends after about 100,000 objects.
    """
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
"""A dict for `Unpickler`. Each key is a pair: the module and the name of a function to which a pickle refers. The item is the object that the load
uses instead of this function."""


class StructureError(ValueError):
    """Raised if the data of a value contain invalid offsets or indices, or are compressed although Stepwell never compresses them."""


# -- Arrow -----------------------------------------------------------------------------------------------------------

_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2
"""The numbers of these types of messages in Arrow's ``Message.fbs``."""
_COMPRESSION = 3
"""The number of the field ``compression`` in the flatbuffer table ``RecordBatch`` of Arrow's ``Message.fbs``."""


def arrow_batches(data: Any) -> tuple[Any, list[Any]]:
    """Read and validate an Arrow IPC stream without copying its data.

    Compressed streams are refused: Stepwell does not write them, and a few compressed bytes could expand to any size.

    Parameters
    ----------
    data
        A buffer that contains the stream.

    Returns
    -------
    schema
        A ``pyarrow.Schema``.
    batches
        A list of ``pyarrow.RecordBatch``, whose arrays are views of ``data``.

    Raises
    ------
    StructureError, pyarrow.ArrowInvalid
        If the stream is invalid or compressed.
    """
    import pyarrow as pa

    buffer = pa.py_buffer(data)
    for message in pa.ipc.MessageReader.open_stream(buffer):
        if _is_compressed(memoryview(message.metadata)):
            raise StructureError("the Arrow data are compressed, but Stepwell writes only uncompressed data")
    reader = pa.ipc.open_stream(buffer)
    batches = list(reader)
    for batch in batches:
        batch.validate(full=True)
    return reader.schema, batches


def _is_compressed(message: memoryview) -> bool:
    """Return True if the metadata of an Arrow IPC message say that its body is compressed."""
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
    """Return the offset of a field in a table of a flatbuffer; 0 if the table does not contain the field.

    Parameters
    ----------
    message
        The flatbuffer.
    table
        The offset of the table.
    number
        The number of the field in the schema of the table.
    """
    vtable = table - struct.unpack_from("<i", message, table)[0]
    if vtable < 0:
        raise StructureError("the metadata of an Arrow message are invalid")
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
    """An unpickler that can replace objects to which the pickle refers by name, and can validate offsets and indices in the loaded data.

    Parameters
    ----------
    stream, buffers
        The pickle, and its out-of-band buffers.
    known
        Replacements for objects to which the pickle refers by name. Each key is a pair: the module and the name of such an object. The item is the
        object that the load uses instead.
    check
        True to validate offsets and indices in the loaded data.
    link
        A function that is called with each link in the pickle. A link is the identifier of an object of the notebook; the function returns this
        object. None to refuse a pickle that contains links.
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
        """Return the object to which the pickle refers by ``module`` and ``name``, or the object that the load uses instead."""
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
        """Return the object of the notebook that has the identifier ``pid``; raise UnpicklingError if the pickle must not contain links."""
        if self._link is None:
            raise pickle.UnpicklingError(
                "the value contains links to objects of a notebook, so it can be loaded only in that notebook"
            )
        return self._link(pid)

    def load(self) -> Any:
        """Load the pickle and return the value.

        Raises
        ------
        StructureError, pyarrow.ArrowInvalid
            If the loaded data are validated and contain invalid offsets or indices.
        """
        value = super().load()
        if self._needs_check:
            check_reachable(value)
        return value


def loads(stream: bytes | memoryview, buffers: Sequence[Any], *, check: bool, link: Link | None = None) -> Any:
    """Load a pickle and return the value. A pickle that refers to classes or functions of the notebook needs `code_copies.load_with` instead.

    Parameters
    ----------
    stream, buffers
        The pickle, which the caller must trust, and its out-of-band buffers.
    check
        True to validate offsets and indices in the loaded data.
    link
        A function that is called with each link in the pickle. A link is the identifier of an object of the notebook; the function returns this
        object. None to refuse a pickle that contains links.

    Raises
    ------
    StructureError, pyarrow.ArrowInvalid
        If ``check`` is True and the loaded data contain invalid offsets or indices.
    """
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
    """Validate all sparse matrices, pandas categoricals and pandas multi-indexes inside a value; raise `StructureError` if one is invalid.

    The indices of the matrices and the codes of the categoricals and multi-indexes are validated, because scipy and pandas do not check them.
    """
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
            # NumPy does not report the items of an array to the garbage collector.
            queue += item.ravel().tolist()


def _checks() -> dict[type, Callable[[Any], None]]:
    """Return, for each type that needs validation, the function that validates an object of this type.

    Types of libraries that are not imported are omitted, because a loaded value cannot contain objects of them.
    """
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
        raise StructureError("the pointers (indptr) of a sparse matrix do not match its shape")
    if starts[0] != 0 or (starts[1:] < starts[:-1]).any() or starts[-1] > min(len(indices), len(value.data)):
        raise StructureError("the pointers (indptr) of a sparse matrix are out of range or not in ascending order")
    _check_range(indices, 0, minor, "indices of a sparse matrix")


def _coordinates(value: Any) -> None:
    coordinates: Iterable[Any] = getattr(value, "coords", None) or (value.row, value.col)
    for numbers, end in zip(coordinates, value.shape, strict=True):
        if len(numbers) != len(value.data):
            raise StructureError("the number of coordinates of a sparse matrix differs from the number of its values")
        _check_range(numbers, 0, end, "coordinates of a sparse matrix")


def _diagonals(value: Any) -> None:
    if value.data.ndim != 2 or len(value.offsets) != len(value.data):
        raise StructureError("the number of offsets of a sparse matrix differs from the number of its diagonals")
