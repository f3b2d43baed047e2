"""Pickling of values: protocol 5 with large buffers out of band, reducers for exceptions and NumPy arrays, and the frame of a pickle.

Most pickles are stored unchanged. A pickle that refers to classes or functions of the notebook is stored in a *frame*. This is one stream that
contains the pickle and copies of these classes and functions, so that the signature and the digest of the stream cover both. A path is also
stored in a frame, with an empty pickle::

    magic, length of the head, length of the copies       16 bytes
    head (JSON)                                            kind of the stream; then names of classes and functions, or a path
    copies                                                 a pickle of classes and functions by value; may be empty
    pickle                                                 the value; may be empty

Stored pickles call functions of this module that rebuild objects (`exception_of`, `called`, `masked`, ...). So the names and parameters of
these functions must not change.

Exceptions: pickle rebuilds an exception by calling its class with ``args``. This may call the user's ``__init__`` with other arguments than
the original call, and loses the cause and the fields that the interpreter stores outside of ``args``. The reducer in this module creates the
exception without calling ``__init__``, and then sets its fields.

NumPy arrays: NumPy passes the memory of an array to pickle out of band only if the buffer protocol can describe this memory. The protocol
cannot describe dates and time spans, so these are stored as 64-bit integers. It also cannot describe arrays that are not contiguous, such as
slices and the columns of a pandas frame, so these are stored as contiguous copies. (pickle would copy them, too.) Small buffers stay in the
stream, because a separate buffer costs more than it saves. NumPy's pickle also loses some properties of arrays, which the reducers in this
module preserve: the byte order of dates, long doubles and strided arrays, if it is not the byte order of the machine; whether the mask of a
masked array is hard; and whether a masked array has a mask at all.

Classes and functions of the notebook are stored by name, with a copy in the frame (`code_copies`). Values that pickle accepts but that would
load as another object (such as a query that is not executed yet) are refused. A figure is stored without its connection to pyplot, so that
a load does not open a window. The versions of the libraries with which a value was written are stored in its catalog row. If the value cannot
be loaded later, the message names these versions.
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
    """The parts of a frame, as described in the docstring of this module."""

    head: dict[str, Any]
    copies: bytes | memoryview
    pickle: bytes | memoryview


def framed(frame: Frame) -> bytes:
    """Return the bytes of a frame. Equal frames have equal bytes."""
    head = json.dumps(frame.head, separators=(",", ":"), sort_keys=True).encode()
    return b"".join((_PREFIX.pack(_MAGIC, len(head), len(frame.copies)), head, frame.copies, frame.pickle))


def is_framed(stream: bytes | memoryview) -> bool:
    """Return True if a stream is a frame, False if it is a plain pickle."""
    return stream[: len(_MAGIC)] == _MAGIC


def unframed(stream: bytes | memoryview) -> Frame:
    """Return the frame that a stream contains; raise ValueError, TypeError or struct.error if the stream is damaged."""
    _, head_size, copies_size = _PREFIX.unpack_from(stream)
    offset = _PREFIX.size
    head = json.loads(bytes(stream[offset : offset + head_size]))
    if not isinstance(head, dict):
        raise TypeError("the head of the frame is not a mapping")
    offset += head_size
    return Frame(head, stream[offset : offset + copies_size], stream[offset + copies_size :])


_HOOKS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
_LEFT_OUT = frozenset({"__class__", "__dict__", "__weakref__", "__traceback__", "message", "exceptions"})
"""Attributes of exceptions that `_reduced` does not store as fields. ``__dict__`` is stored separately. ``message`` and ``exceptions`` of an
exception group are passed to its constructor, because they cannot be set later. The other attributes are not stored."""
_WORD = 8
_NAMESPACE: Any = vars(BaseException)["__dict__"]
_PARTS: Any = (vars(BaseExceptionGroup)["message"], vars(BaseExceptionGroup)["exceptions"])


def exception_reducer(kind: type) -> Callable[[Any], Any] | None:
    """Return the function that reduces exceptions of a type.

    The result is None if the type or one of its base classes customizes pickling, or has a constructor or fields that are not written in Python.
    Built-in base classes do not count. If the result is None, pickle reduces the exceptions itself.
    """
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
    """Raise PicklingError if an exception cannot be sent to another process, because plain pickle cannot rebuild it from its ``args``."""
    init = type(value).__init__
    has_hooks = any(vars(cls).keys() & set(_HOOKS) for cls in type(value).__mro__ if not _is_builtin(cls))
    if has_hooks or type(init) is not FunctionType:
        return
    try:
        inspect.signature(init).bind(value, *value.args)
    except TypeError as error:
        raise pickle.PicklingError(
            f"pickle cannot rebuild this {type(value).__qualname__} from its args: {error}; "
            "pass all arguments of its __init__ to super().__init__()"
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
                continue  # pickle omits this object, too, because it may be of any type, such as a module
            try:
                field = descriptor.__get__(value, kind)
            except (AttributeError, TypeError):
                continue  # the field is not set
            if field is not None:
                fields[name] = field
    state = (fields, dict(_NAMESPACE.__get__(value)))
    return exception_of, (kind, *parts), state, None, None, set_exception


def exception_of(kind: type[BaseException], *parts: Any) -> BaseException:
    """Create an exception without calling its ``__init__``. `set_exception` sets its fields afterwards.

    Parameters
    ----------
    kind
        The class of the exception.
    parts
        The message and the exceptions of an exception group; empty for any other exception.

    Returns
    -------
    BaseException
        The exception, still without fields and attributes.
    """
    error: BaseException = _builtin_base(kind).__new__(kind, *parts)
    return error


def set_exception(error: BaseException, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Set the fields (such as ``args`` and ``__cause__``) and the attributes (``__dict__``) of an exception.

    Parameters
    ----------
    error
        The exception, as returned by `exception_of`.
    state
        A pair of dicts: the fields by name, and the attributes by name.
    """
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
    """Return True if a buffer is so small that it is stored in the stream instead of out of band."""
    return memoryview(buffer).nbytes < OUT_OF_BAND


def reduced(array: Any) -> Any:
    """Return the pickle reduction of an array of dates or time spans, or of an array that is not contiguous.

    Return NotImplemented for all other arrays, for arrays of Python objects, and for arrays with less than `OUT_OF_BAND` bytes. NumPy reduces
    these arrays itself.
    """
    if array.nbytes < OUT_OF_BAND or array.dtype.hasobject:
        return NotImplemented
    if array.dtype.kind in "mM":
        return called, (array.view(f"{array.dtype.byteorder}i8"), array.dtype)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        return array.copy(order="K").__reduce_ex__(5)
    return NotImplemented


def called(numbers: Any, dtype: Any) -> Any:
    """Return a view of an array of 64-bit integers as dates or time spans of the type ``dtype``. Stored pickles call this function."""
    return numbers.view(dtype)


def reducer(kind: type) -> Callable[[Any], Any] | None:
    """Return the function that reduces objects of a NumPy type; None if NumPy reduces them itself."""
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
    # The array is stored as raw bytes, for which NumPy does not change the byte order. A strided array must be copied first.
    plain = value if value.flags.forc else np.array(value, order="K")
    raw = plain.view(np.dtype((np.void, dtype.itemsize)))
    raw.flags.writeable = value.flags.writeable or plain is not value
    return of_dtype, (raw, dtype)


def _mapped(value: Any) -> Any:
    # Assignments to the original change the file. Assignments to a loaded array would not.
    if value.flags.writeable and getattr(value, "mode", "") in {"r+", "w+"}:
        raise TypeError("assignments to this array change the file to which it is mapped")
    return NotImplemented


def _masked(value: Any) -> Any:
    np = sys.modules["numpy"]
    mask = None if value.mask is np.ma.nomask else value._mask  # noqa: SLF001 - the mask itself; the property returns a view
    attributes = {name: attribute for name, attribute in vars(value).items() if name in {"_optinfo", "_basedict"} and attribute}
    return masked, (value.data, mask, value._fill_value, value.hardmask, attributes)  # noqa: SLF001 - None if it was not set; the property returns a default


def of_dtype(raw: Any, dtype: Any) -> Any:
    """Return a view of an array of raw bytes with the type ``dtype``. Stored pickles call this function."""
    return raw.view(dtype)


def masked(data: Any, mask: Any, fill_value: Any, hard: bool, more: dict[str, Any]) -> Any:
    """Create a masked array. Stored pickles call this function.

    Parameters
    ----------
    data
        The data.
    mask
        The mask; None if the array has no mask.
    fill_value
        The fill value as NumPy stores it; None if no fill value was set.
    hard
        True if the mask is hard, so that an assignment to an item does not unmask the item.
    more
        Further entries of the array's ``__dict__``: ``_optinfo`` and ``_basedict``, unless they are empty.
    """
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
    "generator": "return a list of the items: list(generator)",
    "async_generator": "collect the items of the generator in a list, and return the list",
    "coroutine": "await the coroutine, and return its result",
    "memoryview": "return the bytes of the memoryview: bytes(view)",
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
_OTHERWISE = (
    "return plain data, arrays or frames; or define __getstate__ and __setstate__ in the class of this object, so that they leave out "
    "the attributes that cannot be stored"
)


class _RefusedError(Exception):
    """Raised for an object that pickle accepts, but that would load as another object."""


class _Pickler(pickle.Pickler):
    """Pickles values, with the reducers of this module.

    pickle calls `reducer_override` for every object in a value except plain data such as numbers, strings and lists.
    """

    def __init__(self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(stream, 5, buffer_callback=self._put_buffer)
        self._buffers = buffers
        self.numbered: list[Any] = []
        """Classes and functions in the value that are stored with a copy: those of the notebook, and those that their module does not contain under
        their name. The pickle contains their positions in this list instead of their names."""
        self.kinds: set[Any] = set()
        """Types of the objects in the value, and the library classes and functions to which the value refers."""
        self.last_reduced: Any = None
        """The object for which `reducer_override` was called last. If pickling fails, this object is regarded as the cause."""
        self.portable = False
        """True to refuse exception objects that plain pickle cannot transfer to another process; False to store them, too."""

    def _put_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """Return True if a buffer is stored in the stream; otherwise add it to the buffers that are stored out of band, and return False."""
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
    """Pickles values of live cells: stores a link instead of a copy for each object that the value shares with the notebook."""

    def __init__(self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer], link: Link) -> None:
        super().__init__(stream, buffers)
        self._link = link
        self._in_frames: dict[int, Any] = {}
        """Maps the ``id()`` of each array in the pandas objects that were pickled so far to the array."""

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
        # The copy of an inner function gets its closure cells separately, because other functions in the value may share the cells.
        copy, bound = code_copies.Reduced(reduced), code_copies.bound_around(value)
        return code_copies.around, (copy, *value.__closure__), bound, None, None, code_copies.bind_around

    def _frame(self, value: Any) -> Any:
        """Return the pickle reduction of a pandas object.

        If the object shares an array with a pandas object that was pickled earlier, a copy of the object is reduced, so that the loaded objects
        share no array. For the original objects, copy-on-write in pandas ensures that a change of one never changes the other. Loaded objects that
        shared an array would not have this protection.
        """
        arrays = [array.values for array in getattr(getattr(value, "_mgr", None), "blocks", ())]
        unlinked = [array for array in arrays if self._link(array) is None]
        if any(id(array) in self._in_frames for array in unlinked):
            value = value.copy()
        self._in_frames.update({id(array): array for array in unlinked})
        reduced = super().reducer_override(value)
        return value.__reduce_ex__(5) if reduced is NotImplemented else reduced


_MOST_REDUCERS = 1000
_reducers: dict[type, Callable[[Any], Any] | None] = {}
"""Caches the results of `_reducer` by type, because a value may contain many objects of the same type."""


def _reducer(kind: type, value: Any) -> Callable[[Any], Any] | None:
    """Return the function that reduces objects of type ``kind``; None if pickle reduces them itself. ``value`` is an object of this type."""
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
    """Return the pickle reduction of a figure, without the entry that makes pyplot open a window when the figure is loaded."""
    reduction = figure.__reduce_ex__(5)
    if len(reduction) > 2 and isinstance(reduction[2], dict):
        reduction[2].pop("_restore_to_pylab", None)
    return reduction


@dataclass(frozen=True, slots=True)
class Pickled:
    """The pickle of a value, as returned by `dump`."""

    stream: bytes
    buffers: list[memoryview]
    named_versions: tuple[tuple[str, str], ...]
    """A pair for each class and function of the notebook in the value: its name and its code version."""
    libraries: tuple[tuple[str, str], ...]
    """The libraries whose types, classes and functions occur in the value, as pairs such as ``("sklearn", "scikit-learn 1.9.1")``."""
    inner_classes: tuple[str, ...]
    """Qualified names of those classes of the notebook that occur in the value but cannot be looked up by these names, for example because they
    were defined inside a function. A notice advises the user to define them at the top level."""
    kinds: tuple[type, ...] = ()
    """The library classes to which the value refers, and the types of all objects in the value except plain data."""


_NO_CODE = CodeReader()


def dump(value: Any, *, key: str, code: CodeReader = _NO_CODE, link: Link | None = None, portable: bool = False) -> Pickled:
    """Pickle a value.

    Parameters
    ----------
    value
        The value.
    key
        The asset's key, for messages.
    code
        Functions that compute the code versions of the notebook's classes and functions, and recognize secrets.
    link
        A function that is called with each object in the value. For an object of the notebook that must not be copied, it returns an identifier,
        which is stored instead of the object (a *link*). For any other object, it returns None. If ``link`` is None, no links are stored.
    portable
        True to refuse exception objects that plain pickle cannot transfer to another process; False to store them, too.

    Returns
    -------
    Pickled
        The pickle, in a frame if the value refers to classes or functions of the notebook.

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
        # Methods of the user's classes may raise any exception.
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
        # Without copies, a load uses the notebook's classes and functions with these names, or fails.
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
    """Load a pickle and return the value. The caller must trust the stream, because the load executes code in it.

    Parameters
    ----------
    stream, buffers
        The fields of a `Pickled`.
    key
        The asset's key, for messages.
    loading
        What a load needs besides the stored form.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueDamagedError
        If the loaded data contain invalid offsets or indices.
    ValueUnavailableError
        If the value cannot be loaded for another reason, for example because it needs a module that is not installed, or a library of another
        version.
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
            defines=loading.link is not None,
        )
        return code_copies.load_with(resolver, frame.pickle, buffers, check=loading.check, link=loading.link)
    except (ValueUnavailableError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        # Methods of the user's classes and the engine of polars may raise any exception.
        if isinstance(error, structure.StructureError) or _is_invalid_arrow(error):
            raise ValueDamagedError(
                f"the stored value of {key!r} is damaged: {error_text(error)}", remedy=f"materialize {key!r} again"
            ) from error
        raise ValueUnavailableError(
            f"the stored value of {key!r} cannot be loaded{library_difference(loading.libraries, loading.code.owner)}",
            where=f"{type(error).__name__}: {error_text(error)}",
            remedy=library_remedy(loading.libraries, loading.code.owner)
            or f"install the module or define the class that the error names, or materialize {key!r} again",
        ) from error


def _module_of(kind: Any) -> str:
    """Return the name of the module in which a type or function is defined; empty if its ``__module__`` is not a string."""
    if issubclass(type(kind), type):
        return name_parts(kind)[0]
    module = getattr(kind, "__module__", "")
    return module if type(module) is str else ""


def _is_invalid_arrow(error: BaseException) -> bool:
    module = sys.modules.get("pyarrow")
    return module is not None and isinstance(error, module.ArrowInvalid)


def error_text(error: BaseException) -> str:
    """Return the message of an exception as one line of at most 300 characters, even if its ``__str__`` raises an error."""
    try:
        return " ".join(str(error).split())[:300]
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "the message of the error cannot be read"


def _unstorable(value: Any, inner: Any, error: BaseException, key: str) -> UnstorableValueError:
    outer = type_name(value)
    offender = value if inner is None else inner
    name = type_name(offender)
    description = _description(offender, name)
    path, reason = "", f"it is {description}"
    around = (reason, "")
    if offender is not value:
        located = path_to(value, lambda item: item is offender)
        path = located[0] if located is not None else ""
        place = f" at {path}" if path else ""
        reason = f"it is a {outer} that contains {description}{place}"
    where = f"{type(error).__name__}: {error_text(error)}"
    remedy = _remedy(offender, name)
    return UnstorableValueError(f"the value of {key!r}", reason, where=where, remedy=remedy, path=path, around_path=around)


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
        return f"define the {kind} at the top level of a cell or in a module, and do not use values in it that cannot be stored"
    if name in _LOCKS:
        return "leave this object out of the value, and create it in the step that uses it"
    return _REMEDIES.get(name, _OTHERWISE)
