"""Pickle, protocol 5, with large buffers out of band; how exceptions and arrays of numpy are stored in it; and the frame around a pickle.

A plain pickle begins with its own first byte and is stored as it is. What needs more (copies of the notebook's classes, the path of a file whose
contents are kept) is framed, so that all of it is one stream: the signature and the digest always cover the stream::

    magic, length of the head, length of the copies       16 bytes
    head (JSON)                                            what the stream is, what it names
    copies                                                 a pickle of classes and functions by value; may be empty
    pickle                                                 of the value; may be empty

Pickle makes an exception again from ``args``: that calls a user's ``__init__`` with other arguments than the ones it was given, and loses the
cause and the fields that the interpreter keeps beside ``args``. Here the object is made without ``__init__`` and gets the fields that it had.
The functions that rebuild it are named by stored values: they keep their names and arguments.

NumPy hands its memory to pickle only where the buffer protocol can describe it: not for dates and time spans, and not for what
is not contiguous, which is how pandas keeps columns of one type and slices. A date is a 64-bit integer that is called otherwise,
so it goes as that; what is not contiguous goes as the contiguous copy that pickle would make, too. A buffer of some bytes costs
more as an entry of its own than it saves.

What numpy's own pickle changes is kept. numpy writes dates, long doubles and strided arrays of the other byte order in the machine's, and a masked array without its hard mask and with a
full mask where it had none. The functions that rebuild them are named by stored values: they keep their names and arguments.

Classes and functions of the notebook go by name with a copy beside the value (`code_copies`). What pickle would take although it comes back
as something else (a query that is not executed yet) is refused like what it cannot take. A figure is stored apart from pyplot,
so that nothing opens where it is loaded. Beside the stream go the versions of the libraries whose objects are in it: where it
cannot be loaded later, the message says which ones wrote it.
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
    """A stream taken apart."""

    head: dict[str, Any]
    copies: bytes | memoryview
    pickle: bytes | memoryview


def framed(frame: Frame) -> bytes:
    """Return the stream of a frame; equal frames are equal streams."""
    head = json.dumps(frame.head, separators=(",", ":"), sort_keys=True).encode()
    return b"".join((_PREFIX.pack(_MAGIC, len(head), len(frame.copies)), head, frame.copies, frame.pickle))


def is_framed(stream: bytes | memoryview) -> bool:
    """Whether a stream has a frame."""
    return stream[: len(_MAGIC)] == _MAGIC


def unframed(stream: bytes | memoryview) -> Frame:
    """Take a framed stream apart; raises ValueError or struct.error if it is damaged."""
    _, head_size, copies_size = _PREFIX.unpack_from(stream)
    at = _PREFIX.size
    head = json.loads(bytes(stream[at : at + head_size]))
    if not isinstance(head, dict):
        raise TypeError("the head of a stream is no mapping")
    at += head_size
    return Frame(head, stream[at : at + copies_size], stream[at + copies_size :])


_HOOKS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
_LEFT_OUT = frozenset({"__class__", "__dict__", "__weakref__", "__traceback__", "message", "exceptions"})
"""What goes another way (the parts of a group cannot be set), or cannot be stored."""
_WORD = 8
_NAMESPACE: Any = vars(BaseException)["__dict__"]
_PARTS: Any = (vars(BaseExceptionGroup)["message"], vars(BaseExceptionGroup)["exceptions"])


def exception_reducer(kind: type) -> Callable[[Any], Any] | None:
    """Return what reduces exceptions of a type, or None where their class says how, or is not written in Python."""
    mro = type.__dict__["__mro__"].__get__(kind)
    base = _builtin_base(kind)
    room = base.__basicsize__ + 2 * _WORD
    for cls in mro:
        if _is_builtin(cls):
            continue
        own = type.__dict__["__dict__"].__get__(cls)
        room += _WORD * sum(type(each) is MemberDescriptorType for each in own.values())
        made_by = own.get("__new__")
        made_by = made_by.__func__ if type(made_by) is staticmethod else made_by
        if any(name in own for name in _HOOKS) or type(made_by) not in {type(None), FunctionType}:
            return None
    if kind in copyreg.dispatch_table or kind.__basicsize__ > room:
        return None
    return _reduced


def check_arguments(value: BaseException) -> None:
    """Raise PicklingError for an exception that pickle, by which values travel to other processes, cannot make again from its ``args``."""
    init = type(value).__init__
    own = any(vars(cls).keys() & set(_HOOKS) for cls in type(value).__mro__ if not _is_builtin(cls))
    if own or type(init) is not FunctionType:
        return
    try:
        inspect.signature(init).bind(value, *value.args)
    except TypeError as error:
        raise pickle.PicklingError(
            f"{type(value).__qualname__}(*args) does not make it again: {error}; give all arguments to super().__init__()"
        ) from error


def _builtin_base(kind: type) -> type[BaseException]:
    mro: tuple[Any, ...] = type.__dict__["__mro__"].__get__(kind)
    found: type[BaseException] = next(cls for cls in mro if _is_builtin(cls))
    return found


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
                continue  # as for pickle: the object may be anything, such as a module
            try:
                found = descriptor.__get__(value, kind)
            except (AttributeError, TypeError):
                continue  # it has no value
            if found is not None:
                fields[name] = found
    state = (fields, dict(_NAMESPACE.__get__(value)))
    return exception_of, (kind, *parts), state, None, None, set_exception


def exception_of(kind: type[BaseException], *parts: Any) -> BaseException:
    """Return an exception of a type whose fields are not set yet.

    Parameters
    ----------
    parts
        Of a group, its message and its exceptions.
    """
    made: BaseException = _builtin_base(kind).__new__(kind, *parts)
    return made


def set_exception(made: BaseException, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Set the fields and the attributes of an exception."""
    fields, attributes = state
    by_name: dict[str, Any] = {}
    for cls in type.__dict__["__mro__"].__get__(type(made)):
        for name, descriptor in type.__dict__["__dict__"].__get__(cls).items():
            if name in fields and type(descriptor) in {MemberDescriptorType, GetSetDescriptorType}:
                by_name.setdefault(name, descriptor)
    # A cause suppresses the context when it is set.
    for name in sorted(by_name, key=lambda each: each == "__suppress_context__"):
        by_name[name].__set__(made, fields[name])
    _NAMESPACE.__get__(made).update(attributes)


BESIDE = 4096
"""Bytes from which a buffer is kept beside the stream."""


def in_stream(buffer: PickleBuffer) -> bool:
    """Return whether a buffer is better kept in the stream."""
    return memoryview(buffer).nbytes < BESIDE


def reduced(array: Any) -> Any:
    """Return how a ``numpy.ndarray`` is pickled, or NotImplemented where NumPy's own way keeps its bytes beside the stream."""
    if array.nbytes < BESIDE or array.dtype.hasobject:
        return NotImplemented
    if array.dtype.kind in "mM":
        return called, (array.view(f"{array.dtype.byteorder}i8"), array.dtype)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        return array.copy(order="K").__reduce_ex__(5)
    return NotImplemented


def called(numbers: Any, dtype: Any) -> Any:
    """Return integers as the dates or time spans that they are: stored values name this function."""
    return numbers.view(dtype)


def reducer(kind: type) -> Callable[[Any], Any] | None:
    """Return what reduces the objects of a type of numpy, or None where numpy does it rightly."""
    np = sys.modules["numpy"]
    if kind is np.ndarray:
        return _array
    if kind is np.memmap:
        return _mapped
    # By name: numpy imports the module of masked arrays when it is asked for.
    return _masked if (kind.__module__, kind.__name__) == ("numpy.ma", "MaskedArray") else None


def _array(value: Any) -> Any:
    dtype = value.dtype
    if dtype.isnative or dtype.hasobject or not dtype.itemsize:
        return reduced(value)
    np = sys.modules["numpy"]
    # As bytes without an order; of a strided array those of a copy.
    plain = value if value.flags.forc else np.array(value, order="K")
    raw = plain.view(np.dtype((np.void, dtype.itemsize)))
    raw.flags.writeable = value.flags.writeable or plain is not value
    return of_dtype, (raw, dtype)


def _mapped(value: Any) -> Any:
    # An array in its place would change no file. One in memory only is the base of none.
    if value.flags.writeable and getattr(value, "mode", "") in {"r+", "w+"}:
        raise TypeError("what is assigned to it goes into its file")
    return NotImplemented


def _masked(value: Any) -> Any:
    np = sys.modules["numpy"]
    mask = None if value.mask is np.ma.nomask else value._mask  # noqa: SLF001 - the mask itself, not a view of it
    more = {name: each for name, each in vars(value).items() if name in {"_optinfo", "_basedict"} and each}
    return masked, (value.data, mask, value._fill_value, value.hardmask, more)  # noqa: SLF001 - None where none was chosen


def of_dtype(raw: Any, dtype: Any) -> Any:
    """Return an array from its bytes."""
    return raw.view(dtype)


def masked(data: Any, mask: Any, fill_value: Any, hard: bool, more: dict[str, Any]) -> Any:
    """Return a masked array."""
    import numpy as np

    value: Any = np.ma.MaskedArray(data, mask=np.ma.nomask, copy=False, hard_mask=hard)
    if mask is not None:
        value._mask = mask  # noqa: SLF001 - assigned through the property it would be copied into the order of the data
    if fill_value is not None:
        value._fill_value = fill_value  # noqa: SLF001 - an array without dimensions, which the property would convert
    value.__dict__.update(more)
    return value


_LAZY = {
    "polars.LazyFrame": "end the cell with .collect(), so that the value is a DataFrame",
    "duckdb.DuckDBPyRelation": "end the cell with .df(), .pl() or .to_arrow_table(), so that the value is a frame",
}
POLARS_REMEDY = "cast columns of Python objects (pl.Object) to a type of polars' own"
_REMEDIES = {
    **_LAZY,
    "generator": "return list(...) of it: a generator can be read only once",
    "async_generator": "collect what it yields into a list and return that",
    "coroutine": "await it, and return what it gives",
    "memoryview": "return bytes(...) of it",
    "module": "return what you need of the module, not the module",
    "io.TextIOWrapper": "return what the file contains, or its path",
    "io.BufferedReader": "return what the file contains, or its path",
    "io.BufferedWriter": "return the path of the file",
    "io.BufferedRandom": "return the path of the file",
    "io.FileIO": "return what the file contains, or its path",
    "socket.socket": "return what was received; open the connection in the step that uses it",
    "polars.DataFrame": POLARS_REMEDY,
    "polars.Series": POLARS_REMEDY,
    "sqlite3.Connection": "return what was queried; open the connection in the step that uses it",
    "duckdb.DuckDBPyConnection": "return what was queried; open the connection in the step that uses it",
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
_OTHERWISE = "return plain data, arrays or frames; or give its class __getstate__ and __setstate__ that leave out what cannot be kept"


class _RefusedError(Exception):
    """Something that pickle would take, but that would not come back as it is."""


class _Pickler(pickle.Pickler):
    """The C pickler; `reducer_override` is not called for plain data."""

    def __init__(self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(stream, 5, buffer_callback=self._keep)
        self._buffers = buffers
        self.numbered: list[Any] = []
        self.kinds: set[Any] = set()
        """Types, and functions by name, that the stream names."""
        self.last: Any = None
        self.portable = False
        """Whether the value must be one that pickle alone brings to another process."""

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Tell whether a buffer goes into the stream; else it is kept beside it."""
        if in_stream(buffer):
            return True
        self._buffers.append(buffer)
        return False

    def reducer_override(self, value: Any) -> Any:
        self.last = value
        kind = type(value)
        if self.portable and issubclass(kind, BaseException):
            check_arguments(value)
        if kind in _reducers:
            self.kinds.add(kind)
            reduce = _reducers[kind]
            return NotImplemented if reduce is None else reduce(value)
        if kind is FunctionType or issubclass(kind, type):
            made = code_copies.parametrized(value)
            if made is not None:
                return made
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
    """A pickler that stores links to objects which exist where the value is loaded."""

    def __init__(self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer], link: Link) -> None:
        super().__init__(stream, buffers)
        self._link = link
        self._in_frames: dict[int, Any] = {}
        """Arrays of the frames that were pickled, by identity."""

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
        # A function of a function is a copy. What the variables around it are bound to may be bound elsewhere, too.
        copy, bound = code_copies.Reduced(reduced), code_copies.bound_around(value)
        return code_copies.around, (copy, *value.__closure__), bound, None, None, code_copies.bind_around

    def _frame(self, value: Any) -> Any:
        """Return what reduces a frame of pandas. What it has in common with others is copied: pandas copies it when it is written."""
        blocks = [each.values for each in getattr(getattr(value, "_mgr", None), "blocks", ())]
        own = [each for each in blocks if self._link(each) is None]
        if any(id(each) in self._in_frames for each in own):
            value = value.copy()
        self._in_frames.update({id(each): each for each in own})
        reduced = super().reducer_override(value)
        return value.__reduce_ex__(5) if reduced is NotImplemented else reduced


_MOST_REDUCERS = 1000
_reducers: dict[type, Callable[[Any], Any] | None] = {}
"""For types that have been seen, what reduces their objects; None where pickle does it rightly. There may be many objects."""


def _reducer(kind: type, value: Any) -> Callable[[Any], Any] | None:
    """Return what reduces the objects of a type, or None where pickle does it rightly."""
    top = name_parts(kind)[0].partition(".")[0]
    if top == "numpy":
        return reducer(kind)
    if top in {"polars", "duckdb", "_duckdb"} and type_name(value) in _LAZY:
        return _refuse
    if issubclass(kind, BaseException):
        return exception_reducer(kind)
    if issubclass(kind, _figures()):
        return _apart_from_pyplot
    return code_copies.rewrapped if top == "functools" else None


def _figures() -> Any:
    module = sys.modules.get("matplotlib.figure")
    return module.Figure if module is not None else ()


def _refuse(value: Any) -> Any:
    raise _RefusedError(f"cannot store {type_name(value)}")


def _apart_from_pyplot(figure: Any) -> Any:
    """Return what reduces a figure, without the mark that would have pyplot manage it where it is loaded."""
    found = figure.__reduce_ex__(5)
    if len(found) > 2 and isinstance(found[2], dict):
        found[2].pop("_restore_to_pylab", None)
    return found


@dataclass(frozen=True, slots=True)
class Pickled:
    """What `dump` gives."""

    stream: bytes
    buffers: list[memoryview]
    named: tuple[tuple[str, str], ...]
    """Classes and functions that the value names and that have a copy or are the notebook's, each with its code version."""
    libraries: tuple[tuple[str, str], ...]
    inside: tuple[str, ...]
    """Names of classes that were defined inside the code that made the value."""
    kinds: tuple[type, ...] = ()
    """Types of the objects in it, apart from plain data."""


_NO_CODE = CodeReader()


def dump(
    value: Any, *, key: str, code: CodeReader = _NO_CODE, link: Link | None = None, portable: bool = False
) -> Pickled:
    """Return the stored form of a value.

    Parameters
    ----------
    link
        Returns the link to an object that exists where the value is loaded, or None.
    portable
        Whether pickle alone must be able to bring the value to another process.

    Raises
    ------
    UnstorableValueError
        If something in the value cannot be stored.
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
        # A class may raise anything when it is taken apart.
        raise _unstorable(value, pickler.last, error, key) from error
    kinds = tuple([kind for kind in pickler.kinds if issubclass(type(kind), type)])
    written = () if not pickler.kinds else libraries_of([_module_of(kind) for kind in pickler.kinds], code.owner)
    found = pickler.numbered
    if not found:
        return Pickled(stream.getvalue(), raw, (), written, (), kinds)
    named = [(code_copies.name_of(each), code.version_of(each)) for each in found]
    nameless = [each for each in found if code_copies.at_name(each.__module__, each.__qualname__) is not each]
    why = ""
    try:
        copies = code_copies.dump_copies(found, named, code)
    except NoCopyError as error:
        if nameless:
            raise _unstorable(value, nameless[0], error.__cause__ or error, key) from error
        # What has a name can be found again by it.
        copies, why = b"", str(error)
    inside = [code_copies.name_of(each) for each in nameless]
    head = {"kind": "named", "names": named, "inside": inside, "why": why, "python": code_copies.PYTHON}
    return Pickled(
        framed(Frame(head, copies, stream.getvalue())),
        raw,
        tuple(sorted(named)),
        written,
        tuple(each.__qualname__ for each in nameless if isinstance(each, type) and each.__module__ == "__main__"),
        kinds,
    )


def load(stream: bytes | memoryview, buffers: Sequence[Any], *, key: str, loading: Loading) -> Any:
    """Return the value; the stream must be trusted.

    Raises
    ------
    ValueDamagedError
        If something in it points outside of it.
    ValueUnavailableError
        If it cannot be loaded: a module is not installed, or its version reads another form.
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
            tell=loading.tell,
        )
        return code_copies.load_with(resolver, frame.pickle, buffers, check=loading.check, link=loading.link)
    except (ValueUnavailableError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        # A class may raise anything, and so may what polars' engine does with its state.
        if isinstance(error, structure.StructureError) or _is_invalid_arrow(error):
            raise ValueDamagedError(
                f"the stored value of {key!r} is damaged: {said(error)}", remedy=f"materialize {key!r} again"
            ) from error
        raise ValueUnavailableError(
            f"the stored value of {key!r} cannot be loaded{library_difference(loading.written, loading.code.owner)}",
            where=f"{type(error).__name__}: {said(error)}",
            remedy=library_remedy(loading.written, loading.code.owner)
            or "make importable what it names, or materialize it again",
        ) from error


def _module_of(kind: Any) -> str:
    """Return the module of a type, or of a function by name."""
    if issubclass(type(kind), type):
        return name_parts(kind)[0]
    module = getattr(kind, "__module__", "")
    return module if type(module) is str else ""


def _is_invalid_arrow(error: BaseException) -> bool:
    module = sys.modules.get("pyarrow")
    return module is not None and isinstance(error, module.ArrowInvalid)


def said(error: BaseException) -> str:
    """Return the text of an exception in one line; its class may raise anything when it is asked for it."""
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
    path = ""
    if offender is value:
        what = f"the value of {key!r} cannot be stored: it is {_called(offender, name)}"
    else:
        found = path_to(value, lambda item: item is offender)
        path = found[0] if found is not None else ""
        at = f" at {path}" if path else ""
        what = f"the value of {key!r} cannot be stored: it is a {outer} that holds {_called(offender, name)}{at}"
    where = f"{type(error).__name__}: {said(error)}"
    return UnstorableValueError(what, where=where, remedy=_remedy(offender, name), path=path)


def _called(offender: Any, name: str) -> str:
    kind = type(offender)
    if kind is FunctionType:
        return "a lambda" if offender.__name__ == "<lambda>" else f"the function {offender.__qualname__}"
    if issubclass(kind, type):
        return f"an instance of, or the class, {name_parts(offender)[1]}"
    return f"the module {offender.__name__}" if kind is ModuleType else f"a {name}"


def _remedy(offender: Any, name: str) -> str:
    if issubclass(type(offender), FunctionType | type):
        kind = "class" if issubclass(type(offender), type) else "function with def"
        return f"define the {kind} at the top of a cell of its own or in a module, without what cannot be stored in its closure or body"
    if name in _LOCKS:
        return "keep it out of the value: make it in the step that uses it"
    return _REMEDIES.get(name, _OTHERWISE)
