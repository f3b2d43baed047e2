"""Pickle, protocol 5, with large buffers out of band; the reducers for exceptions and arrays of numpy; and the frame of a pickle.

A plain pickle is stored unchanged. A pickle with additional data (copies of the notebook's classes, or the path of a file with stored
contents) is framed, so that all data are in one stream, which the signature and the digest cover::

    magic, length of the head, length of the copies       16 bytes
    head (JSON)                                            kind of the stream, and the names in the stream
    copies                                                 a pickle of classes and functions by value; may be empty
    pickle                                                 the value; may be empty

Stored values refer to the functions in this module that rebuild objects (`exception_of`, `called`, `masked`, ...). The names and
parameters of these functions must not change.

Pickle rebuilds an exception from ``args``. This may call the user's ``__init__`` with other arguments than the original call, and loses the
cause and the fields that the interpreter stores outside of ``args``. The reducer in this module creates the exception without ``__init__``
and sets its fields.

NumPy passes the memory of an array to pickle out of band only if the buffer protocol can describe this memory. This excludes dates and time
spans, and arrays that are not contiguous, such as slices and the columns of pandas. Dates and time spans are stored as 64-bit integers.
Arrays that are not contiguous are stored as a contiguous copy, which pickle would make, too. Small buffers stay in the stream, because a
separate buffer costs more than it saves. NumPy's pickle also changes some arrays: dates, long doubles and strided arrays of the other byte
order get the byte order of the machine, and a masked array loses its hard mask, or gets a full mask if it had no mask. The reducers in this
module preserve these properties.

Classes and functions of the notebook are stored by name, with a copy in the frame (`code_copies`). Values that pickle accepts but that load
as another object (such as a query that is not executed yet) are refused. A figure is stored without its connection to pyplot, so that
loading it does not open a window. The versions of the libraries with which a value was written are stored in the value's row. If the value
cannot be loaded later, the message names these versions.
"""

from __future__ import annotations

import builtins
import copyreg
import inspect
import io
import json
import pickle
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pickle import PickleBuffer
from types import CellType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

from stepwell.kernel_runtime.errors import UnstorableValueError, ValueDamagedError, ValueUnavailableError
from stepwell.kernel_runtime.records.materializations import Link
from stepwell.kernel_runtime.store.values import code_copies, path_results, structure
from stepwell.kernel_runtime.store.values.code_copies import NoCopyError
from stepwell.kernel_runtime.store.values.loading import (
    CodeReader,
    Loading,
    libraries_of,
    library_difference,
    library_remedy,
)
from stepwell.kernel_runtime.store.values.structure import name_parts, path_to, type_name

_PREFIX = struct.Struct("<8sII")
_MAGIC = b"SWFRAME\x01"


@dataclass(frozen=True, slots=True)
class Frame:
    """The parts of a framed stream."""

    head: dict[str, Any]
    copies: bytes | memoryview
    pickle: bytes | memoryview


def framed(frame: Frame) -> bytes:
    """Return the stream of a frame. Equal frames have equal streams."""
    head = json.dumps(frame.head, separators=(",", ":"), sort_keys=True).encode()
    return b"".join((_PREFIX.pack(_MAGIC, len(head), len(frame.copies)), head, frame.copies, frame.pickle))


def is_framed(stream: bytes | memoryview) -> bool:
    """Return True if a stream is framed."""
    return stream[: len(_MAGIC)] == _MAGIC


def unframed(stream: bytes | memoryview) -> Frame:
    """Return the parts of a framed stream; raise ValueError, TypeError or struct.error if the stream is damaged."""
    _, head_size, copies_size = _PREFIX.unpack_from(stream)
    offset = _PREFIX.size
    head = json.loads(bytes(stream[offset : offset + head_size]))
    if not isinstance(head, dict):
        raise TypeError("the head of a stream is not a mapping")
    offset += head_size
    return Frame(head, stream[offset : offset + copies_size], stream[offset + copies_size :])


_HOOKS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
_LEFT_OUT = frozenset({"__class__", "__dict__", "__weakref__", "__traceback__", "message", "exceptions"})
"""Attributes that are stored separately, or not at all. The parts of an exception group can be set only when the group is created."""
_WORD = 8
_NAMESPACE: Any = vars(BaseException)["__dict__"]
_PARTS: Any = (vars(BaseExceptionGroup)["message"], vars(BaseExceptionGroup)["exceptions"])


def exception_reducer(kind: type) -> Callable[[Any], Any] | None:
    """Return the reducer for exceptions of a type; None if the type customizes its pickling or is not written in Python."""
    mro = type.__dict__["__mro__"].__get__(kind)
    base = _builtin_base(kind)
    max_size = base.__basicsize__ + 2 * _WORD
    for cls in mro:
        if _is_builtin(cls):
            continue
        attributes = type.__dict__["__dict__"].__get__(cls)
        max_size += _WORD * sum(type(attribute) is MemberDescriptorType for attribute in attributes.values())
        constructor = attributes.get("__new__")
        constructor = constructor.__func__ if type(constructor) is staticmethod else constructor
        if any(name in attributes for name in _HOOKS) or type(constructor) not in {type(None), FunctionType}:
            return None
    if kind in copyreg.dispatch_table or kind.__basicsize__ > max_size:
        return None
    return _reduced


def check_arguments(value: BaseException) -> None:
    """Raise PicklingError if plain pickle, which transfers values to other processes, cannot rebuild an exception from its ``args``."""
    init = type(value).__init__
    has_hooks = any(vars(cls).keys() & set(_HOOKS) for cls in type(value).__mro__ if not _is_builtin(cls))
    if has_hooks or type(init) is not FunctionType:
        return
    try:
        inspect.signature(init).bind(value, *value.args)
    except TypeError as error:
        raise pickle.PicklingError(
            f"{type(value).__qualname__}(*args) cannot rebuild it: {error}; pass all arguments to super().__init__()"
        ) from error


def _builtin_base(kind: type) -> type[BaseException]:
    mro: tuple[Any, ...] = type.__dict__["__mro__"].__get__(kind)
    base: type[BaseException] = next(cls for cls in mro if _is_builtin(cls))
    return base


def _is_builtin(cls: type) -> bool:
    return vars(builtins).get(cls.__name__) is cls


def _reduced(value: BaseException) -> tuple[Any, ...]:
    kind = type(value)
    parts = tuple([part.__get__(value) for part in _PARTS]) if issubclass(kind, BaseExceptionGroup) else ()
    fields: dict[str, Any] = {}
    for cls in reversed(type.__dict__["__mro__"].__get__(kind)):
        for name, descriptor in type.__dict__["__dict__"].__get__(cls).items():
            if type(descriptor) not in {MemberDescriptorType, GetSetDescriptorType} or name in _LEFT_OUT:
                continue
            if cls is AttributeError and name == "obj":
                continue  # as in pickle: the object may be anything, such as a module
            try:
                field = descriptor.__get__(value, kind)
            except (AttributeError, TypeError):
                continue  # the field is not set
            if field is not None:
                fields[name] = field
    state = (fields, dict(_NAMESPACE.__get__(value)))
    return exception_of, (kind, *parts), state, None, None, set_exception


def exception_of(kind: type[BaseException], *parts: Any) -> BaseException:
    """Return an exception without its fields, which `set_exception` sets.

    Parameters
    ----------
    kind
        The class of the exception.
    parts
        The message and the exceptions of an exception group; empty for any other exception.

    Returns
    -------
    BaseException
        The exception, created without ``__init__``.
    """
    error: BaseException = _builtin_base(kind).__new__(kind, *parts)
    return error


def set_exception(error: BaseException, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Set the fields and the attributes of an exception."""
    fields, attributes = state
    by_name: dict[str, Any] = {}
    for cls in type.__dict__["__mro__"].__get__(type(error)):
        for name, descriptor in type.__dict__["__dict__"].__get__(cls).items():
            if name in fields and type(descriptor) in {MemberDescriptorType, GetSetDescriptorType}:
                by_name.setdefault(name, descriptor)
    # Setting the cause also sets __suppress_context__, so __suppress_context__ is set last.
    for name in sorted(by_name, key=lambda name: name == "__suppress_context__"):
        by_name[name].__set__(error, fields[name])
    _NAMESPACE.__get__(error).update(attributes)


OUT_OF_BAND = 4096
"""Minimum size in bytes of a buffer that is stored out of band."""


def in_stream(buffer: PickleBuffer) -> bool:
    """Return True if a buffer is small enough to be stored in the stream."""
    return memoryview(buffer).nbytes < OUT_OF_BAND


def reduced(array: Any) -> Any:
    """Return the reduction of a ``numpy.ndarray``, or NotImplemented if NumPy's pickle is suitable."""
    if array.nbytes < OUT_OF_BAND or array.dtype.hasobject:
        return NotImplemented
    if array.dtype.kind in "mM":
        return called, (array.view(f"{array.dtype.byteorder}i8"), array.dtype)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        return array.copy(order="K").__reduce_ex__(5)
    return NotImplemented


def called(numbers: Any, dtype: Any) -> Any:
    """Return integers as dates or time spans."""
    return numbers.view(dtype)


def reducer(kind: type) -> Callable[[Any], Any] | None:
    """Return the reducer for a type of NumPy; None if NumPy's pickle is suitable."""
    np = sys.modules["numpy"]
    if kind is np.ndarray:
        return _array
    if kind is np.memmap:
        return _mapped
    # Compare by name, because access to `numpy.ma` imports the module.
    return _masked if (kind.__module__, kind.__name__) == ("numpy.ma", "MaskedArray") else None


def _array(value: Any) -> Any:
    dtype = value.dtype
    if dtype.isnative or dtype.hasobject or not dtype.itemsize:
        return reduced(value)
    np = sys.modules["numpy"]
    # The array is stored as raw bytes, which have no byte order. A strided array must be copied first.
    plain = value if value.flags.forc else np.array(value, order="K")
    raw = plain.view(np.dtype((np.void, dtype.itemsize)))
    raw.flags.writeable = value.flags.writeable or plain is not value
    return of_dtype, (raw, dtype)


def _mapped(value: Any) -> Any:
    # A loaded array would not write to the file, unlike the original.
    if value.flags.writeable and getattr(value, "mode", "") in {"r+", "w+"}:
        raise TypeError("it is mapped from a file, and assignments to it change the file")
    return NotImplemented


def _masked(value: Any) -> Any:
    np = sys.modules["numpy"]
    mask = None if value.mask is np.ma.nomask else value._mask  # noqa: SLF001 - the mask itself; the property returns a view
    attributes = {
        name: attribute for name, attribute in vars(value).items() if name in {"_optinfo", "_basedict"} and attribute
    }
    return masked, (value.data, mask, value._fill_value, value.hardmask, attributes)  # noqa: SLF001 - None if it was not set; the property returns a default


def of_dtype(raw: Any, dtype: Any) -> Any:
    """Return an array with a dtype from its raw bytes."""
    return raw.view(dtype)


def masked(data: Any, mask: Any, fill_value: Any, hard: bool, more: dict[str, Any]) -> Any:
    """Return a masked array."""
    import numpy as np

    value: Any = np.ma.MaskedArray(data, mask=np.ma.nomask, copy=False, hard_mask=hard)
    if mask is not None:
        value._mask = mask  # noqa: SLF001 - the property would copy the mask into the memory order of the data
    if fill_value is not None:
        value._fill_value = fill_value  # noqa: SLF001 - a zero-dimensional array, which the property would convert
    value.__dict__.update(more)
    return value


_LAZY = {
    "polars.LazyFrame": "end the cell with .collect(), so that the value is a DataFrame",
    "duckdb.DuckDBPyRelation": "end the cell with .df(), .pl() or .to_arrow_table(), so that the value is a frame",
}
POLARS_REMEDY = "cast columns of Python objects (pl.Object) to another polars type"
_REMEDIES = {
    **_LAZY,
    "generator": "return list(...) of it: a generator can be read only once",
    "async_generator": "collect its items in a list, and return the list",
    "coroutine": "await it, and return the result",
    "memoryview": "return bytes(...) of it",
    "module": "return the objects of the module that you need, not the module",
    "io.TextIOWrapper": "return the contents of the file, or its path",
    "io.BufferedReader": "return the contents of the file, or its path",
    "io.BufferedWriter": "return the path of the file",
    "io.BufferedRandom": "return the path of the file",
    "io.FileIO": "return the contents of the file, or its path",
    "socket.socket": "return the received data; open the connection in the step that uses it",
    "polars.DataFrame": POLARS_REMEDY,
    "polars.Series": POLARS_REMEDY,
    "sqlite3.Connection": "return the result of a query; open the connection in the step that uses it",
    "duckdb.DuckDBPyConnection": "return the result of a query; open the connection in the step that uses it",
}
_LOCKS = frozenset(
    {
        "_thread.lock",
        "_thread.RLock",
        "_thread._ThreadHandle",
        "threading.Condition",
        "threading.Event",
        "threading.Semaphore",
        "threading.Thread",
    }
)
_OTHERWISE = "return plain data, arrays or frames; or define __getstate__ and __setstate__ in its class, and leave out what cannot be stored"


class _RefusedError(Exception):
    """Raised for an object that pickle accepts, but that would load as another object."""


class _Pickler(pickle.Pickler):
    """The C pickler, which does not call `reducer_override` for plain data."""

    def __init__(self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(stream, 5, buffer_callback=self._put_buffer)
        self._buffers = buffers
        self.numbered: list[Any] = []
        """Classes and functions of the notebook; the pickle contains their positions in this list."""
        self.kinds: set[Any] = set()
        """Types of the objects in the stream, and classes and functions that the stream refers to by name."""
        self.last_reduced: Any = None
        """The last object that was reduced. If pickling raises an error, this object caused it."""
        self.portable = False
        """True if plain pickle must be able to transfer the value to another process."""

    def _put_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """Return True if a buffer is to be stored in the stream; otherwise add it to the buffers."""
        if in_stream(buffer):
            return True
        self._buffers.append(buffer)
        return False

    def reducer_override(self, value: Any) -> Any:
        self.last_reduced = value
        kind = type(value)
        if self.portable and issubclass(kind, BaseException):
            check_arguments(value)
        if kind in _reducers:
            self.kinds.add(kind)
            reduce = _reducers[kind]
            return NotImplemented if reduce is None else reduce(value)
        if kind is FunctionType or issubclass(kind, type):
            reduction = code_copies.parametrized(value)
            if reduction is not None:
                return reduction
            if code_copies.goes_by_copy(value):
                self.numbered.append(value)
                return code_copies.notebook_object, (len(self.numbered) - 1,)
            self.kinds.add(value)
            return NotImplemented
        self.kinds.add(kind)
        reduce = _reducer(kind, value)
        if name_parts(kind)[0] != "__main__" and len(_reducers) < _MOST_REDUCERS:
            _reducers[kind] = reduce
        return NotImplemented if reduce is None else reduce(value)


class _LinkingPickler(_Pickler):
    """A pickler that stores links for objects that exist where the value is loaded."""

    def __init__(self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer], link: Link) -> None:
        super().__init__(stream, buffers)
        self._link = link
        self._in_frames: dict[int, Any] = {}
        """Maps ids to the arrays of the frames that were pickled."""

    def persistent_id(self, item: Any) -> Any:
        return self._link(item)

    def reducer_override(self, value: Any) -> Any:
        if type(value) is CellType:
            return code_copies.new_cell, ()
        if type(value) is code_copies.Reduced:
            return value.parts
        if type(value).__module__.startswith("pandas.core."):
            return self._frame(value)
        reduced = super().reducer_override(value)
        if type(value) is not FunctionType or not value.__closure__ or "<locals>" not in value.__qualname__:
            return reduced
        if reduced is NotImplemented:
            return reduced
        # An inner function is stored as a copy. Its closure cells are stored separately, because other functions may share them.
        copy, bound = code_copies.Reduced(reduced), code_copies.bound_around(value)
        return code_copies.around, (copy, *value.__closure__), bound, None, None, code_copies.bind_around

    def _frame(self, value: Any) -> Any:
        """Return the reduction of a pandas frame. Arrays shared with an earlier frame are copied, as pandas does on writing."""
        arrays = [array.values for array in getattr(getattr(value, "_mgr", None), "blocks", ())]
        unlinked = [array for array in arrays if self._link(array) is None]
        if any(id(array) in self._in_frames for array in unlinked):
            value = value.copy()
        self._in_frames.update({id(array): array for array in unlinked})
        reduced = super().reducer_override(value)
        return value.__reduce_ex__(5) if reduced is NotImplemented else reduced


_MOST_REDUCERS = 1000
_reducers: dict[type, Callable[[Any], Any] | None] = {}
"""A cache of reducers by type; None if pickle is suitable. A value may contain many objects of one type."""


def _reducer(kind: type, value: Any) -> Callable[[Any], Any] | None:
    """Return the reducer for the objects of a type; None if pickle is suitable."""
    top = name_parts(kind)[0].partition(".")[0]
    if top == "numpy":
        return reducer(kind)
    if top in {"polars", "duckdb", "_duckdb"} and type_name(value) in _LAZY:
        return _refuse
    if issubclass(kind, BaseException):
        return exception_reducer(kind)
    if issubclass(kind, _figures()):
        return _without_pyplot
    return code_copies.rewrapped if top == "functools" else None


def _figures() -> Any:
    module = sys.modules.get("matplotlib.figure")
    return module.Figure if module is not None else ()


def _refuse(value: Any) -> Any:
    raise _RefusedError(f"cannot store {type_name(value)}")


def _without_pyplot(figure: Any) -> Any:
    """Return the reduction of a figure, without the mark that makes pyplot manage the loaded figure."""
    reduction = figure.__reduce_ex__(5)
    if len(reduction) > 2 and isinstance(reduction[2], dict):
        reduction[2].pop("_restore_to_pylab", None)
    return reduction


@dataclass(frozen=True, slots=True)
class Pickled:
    """The result of `dump`."""

    stream: bytes
    buffers: list[memoryview]
    named_versions: tuple[tuple[str, str], ...]
    """Names and code versions of the classes and functions that are stored with a copy."""
    libraries: tuple[tuple[str, str], ...]
    """Libraries to which objects in the value belong, with their versions."""
    inner_classes: tuple[str, ...]
    """Names of classes that were defined inside a function or an asset's cell."""
    kinds: tuple[type, ...] = ()
    """Types of the objects in the value, except plain data."""


_NO_CODE = CodeReader()


def dump(
    value: Any, *, key: str, code: CodeReader = _NO_CODE, link: Link | None = None, portable: bool = False
) -> Pickled:
    """Pickle a value.

    Parameters
    ----------
    value
        The value.
    key
        The asset's key, for messages.
    code
        Functions that read the code of classes and functions.
    link
        Returns the link for an object that exists where the value is loaded, or None for other objects.
    portable
        True if plain pickle must be able to transfer the value to another process.

    Returns
    -------
    Pickled
        The stream, the buffers, and the names in the stream.

    Raises
    ------
    UnstorableValueError
        If an object in the value cannot be stored.
    """
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    pickler = _Pickler(stream, buffers) if link is None else _LinkingPickler(stream, buffers, link)
    pickler.portable = portable
    try:
        pickler.dump(value)
        raw = [buffer.raw() for buffer in buffers]
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        # Methods of the user's classes may raise anything.
        raise _unstorable(value, pickler.last_reduced, error, key) from error
    kinds = tuple([kind for kind in pickler.kinds if issubclass(type(kind), type)])
    libraries = () if not pickler.kinds else libraries_of([_module_of(kind) for kind in pickler.kinds], code.owner)
    numbered = pickler.numbered
    if not numbered:
        return Pickled(stream.getvalue(), raw, (), libraries, (), kinds)
    named = [(code_copies.name_of(item), code.version_of(item)) for item in numbered]
    nameless = [item for item in numbered if code_copies.at_name(item.__module__, item.__qualname__) is not item]
    why = ""
    try:
        copies = code_copies.dump_copies(numbered, named, code)
    except NoCopyError as error:
        if nameless:
            raise _unstorable(value, nameless[0], error.__cause__ or error, key) from error
        # Without copies, a load needs the classes and functions with these names in the notebook.
        copies, why = b"", str(error)
    inside = [code_copies.name_of(item) for item in nameless]
    head = {"kind": "named", "names": named, "inside": inside, "why": why, "python": code_copies.PYTHON}
    return Pickled(
        framed(Frame(head, copies, stream.getvalue())),
        raw,
        tuple(sorted(named)),
        libraries,
        tuple(item.__qualname__ for item in nameless if isinstance(item, type) and item.__module__ == "__main__"),
        kinds,
    )


def load(stream: bytes | memoryview, buffers: Sequence[Any], *, key: str, loading: Loading) -> Any:
    """Return the value of a pickle. The stream must be trusted, because loading executes code.

    Parameters
    ----------
    stream, buffers
        The fields of a `Pickled`.
    key
        The asset's key, for messages.
    loading
        The parameters of loading.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueDamagedError
        If the data contain invalid offsets or indices.
    ValueUnavailableError
        If the value cannot be loaded, for example because a module is not installed or expects another format.
    """
    try:
        if not is_framed(stream):
            return structure.loads(stream, buffers, check=loading.check, link=loading.link)
        frame = unframed(stream)
        head = frame.head
        if head["kind"] == path_results.KIND:
            return path_results.load(head, buffers, key=key, loading=loading)
        resolver = code_copies.Resolver(
            head["names"],
            frame.copies,
            head["python"],
            head["inside"],
            head["why"],
            key=key,
            code=loading.code,
            notify=loading.notify,
        )
        return code_copies.load_with(resolver, frame.pickle, buffers, check=loading.check, link=loading.link)
    except (ValueUnavailableError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        # Methods of the user's classes and the engine of polars may raise anything.
        if isinstance(error, structure.StructureError) or _is_invalid_arrow(error):
            raise ValueDamagedError(
                f"the stored value of {key!r} is damaged: {error_text(error)}", remedy=f"materialize {key!r} again"
            ) from error
        raise ValueUnavailableError(
            f"the stored value of {key!r} cannot be loaded{library_difference(loading.libraries, loading.code.owner)}",
            where=f"{type(error).__name__}: {error_text(error)}",
            remedy=library_remedy(loading.libraries, loading.code.owner)
            or "make the module that it needs importable, or materialize it again",
        ) from error


def _module_of(kind: Any) -> str:
    """Return the name of the module of a type or function; empty if there is none."""
    if issubclass(type(kind), type):
        return name_parts(kind)[0]
    module = getattr(kind, "__module__", "")
    return module if type(module) is str else ""


def _is_invalid_arrow(error: BaseException) -> bool:
    module = sys.modules.get("pyarrow")
    return module is not None and isinstance(error, module.ArrowInvalid)


def error_text(error: BaseException) -> str:
    """Return the message of an exception in one line, even if its ``__str__`` fails."""
    try:
        return " ".join(str(error).split())[:300]
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "its message cannot be read"


def _unstorable(value: Any, inner: Any, error: BaseException, key: str) -> UnstorableValueError:
    outer = type_name(value)
    offender = value if inner is None else inner
    name = type_name(offender)
    description = _description(offender, name)
    path = ""
    if offender is value:
        message = f"the value of {key!r} cannot be stored: it is {description}"
    else:
        located = path_to(value, lambda item: item is offender)
        path = located[0] if located is not None else ""
        place = f" at {path}" if path else ""
        message = f"the value of {key!r} cannot be stored: it is a {outer} that contains {description}{place}"
    where = f"{type(error).__name__}: {error_text(error)}"
    reason = (f"it is {description}", "")
    return UnstorableValueError(message, where=where, remedy=_remedy(offender, name), path=path, reason=reason)


def _description(offender: Any, name: str) -> str:
    kind = type(offender)
    if kind is FunctionType:
        return "a lambda" if offender.__name__ == "<lambda>" else f"the function {offender.__qualname__}"
    if issubclass(kind, type):
        return f"the class {name_parts(offender)[1]} or an instance of it"
    return f"the module {offender.__name__}" if kind is ModuleType else f"a {name}"


def _remedy(offender: Any, name: str) -> str:
    if issubclass(type(offender), FunctionType | type):
        kind = "class" if issubclass(type(offender), type) else "function with def"
        return f"define the {kind} at the top level of a cell or in a module, without values in its closure or body that cannot be stored"
    if name in _LOCKS:
        return "leave it out of the value, and create it in the step that uses it"
    return _REMEDIES.get(name, _OTHERWISE)
