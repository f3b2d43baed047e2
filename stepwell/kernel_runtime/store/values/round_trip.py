"""A test load of a value before it is stored, unless all types in the value are known to survive the round trip through the stored form.

Pickle can write many values that it cannot load: for example an exception whose ``args`` do not match the parameters of its ``__init__``, or
an instance of a class whose ``__setstate__`` raises an error. If such a value were stored, it would be reused, and every step that loads it
would fail.

Three kinds of types are known to survive: the types of some modules of the standard library (`_PLAIN`); the types of libraries whose values the
fidelity tests cover (`_TRIED`); and classes that are written in Python, are not defined inside a function, and have no method that takes part
in pickling (`_HOOKS`). Exceptions are never known to survive. A value that contains an object of any other type is loaded from its stored form
and compared with the original. Both must have the same type and, if both have a data version, equal data versions. If each of these other types
is a Python class of a library, the data versions are not compared, because a library decides which attributes of its objects a load restores.

A successful test is recorded until the machine restarts (`objects/checked`), together with the types in the value, their code versions and
the versions of their libraries. While the record is valid, a value that has these types and more than `SMALL` bytes is stored without a test
load. A value of at most `SMALL` bytes is tested every time, because it is loaded as quickly as it is written.

A test load takes place in one of two processes:

- In a separate process: values of more than `MOST_HERE` bytes, because the loaded copy needs as much memory as the original; and values with
  types of extension modules, unless a successful test is recorded, because the load may crash the process. If the separate process
  cannot import what the value needs, the test takes place in this process.
- In this process, with a time limit: all other values. If no successful test is recorded for the types of a value, a forked copy of this
  process loads the value first, because a load in the copy can neither crash nor block this process.
"""

from __future__ import annotations

import contextlib
import copyreg
import gc
import importlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from stepwell.kernel_runtime.errors import UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.store.objects.checked import Witnesses
from stepwell.kernel_runtime.store.values import codecs, pickling
from stepwell.kernel_runtime.store.values.loading import CodeReader, Loading
from stepwell.kernel_runtime.store.values.structure import name_parts, path_to, type_name

SMALL = 64 * 1024
"""Maximum size in bytes of a value that is tested even if an earlier test of the same types is recorded."""
MOST_HERE = 8 << 20
"""Maximum size in bytes of a value whose test load takes place in this process."""
SECONDS = 10.0
"""Time limit in seconds of a test load in this process or in a forked copy of it."""
SECONDS_APART = 60.0
"""Time limit in seconds of a test load in a separate process, including the time for imports."""
_REMEDY = (
    "return plain data, arrays or frames; or define __reduce__, or __getstate__ and __setstate__, in the class of this object, "
    "so that pickle creates an equal object"
)


# -- types that survive the round trip ---------------------------------------------------------------------------------

_TRIED = frozenset(("numpy", "pandas", "pyarrow", "polars", "scipy", "sklearn", "stepwell"))
"""Top-level modules of the libraries whose values the fidelity tests cover."""
_PLAIN = frozenset(
    (
        "builtins", "collections", "_collections", "datetime", "decimal", "_decimal", "fractions", "uuid", "pathlib", "pathlib._local",
        "zoneinfo", "array", "ipaddress", "types", "functools", "re", "random", "_random", "itertools", "operator", "_operator", "statistics",
        "abc", "typing", "string", "math", "time", "numbers", "enum",
    )
)  # fmt: skip
"""Modules of the standard library whose types survive the round trip."""
_HOOKS = frozenset(
    (
        "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__", "__new__",
        "__getattr__", "__getattribute__", "__class__",
    )
)  # fmt: skip
"""The names of methods and attributes through which a class can change how its objects are pickled or loaded."""
_ITEM_HOOKS = frozenset(("__setitem__", "append", "extend"))
"""Methods that pickle calls when it loads an object of a subclass of list or dict."""
_CYTHONS_FUNCTIONS = frozenset((("", "cython_function_or_method"), ("", "fused_cython_function")))
"""Names of the types of functions that Cython compiles. Pickle stores all functions, including these, by name."""
_known_types: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def survives(kind: type) -> bool:
    """Return True if objects of the type ``kind`` need no test load, because each of them that can be pickled is known to load as an equal object."""
    known = _known_types.get(kind)
    if known is None:
        known = _known_types[kind] = _survives(kind)
    return known


def _survives(kind: type) -> bool:
    if issubclass(kind, BaseException) or kind in copyreg.dispatch_table or "<" in name_parts(kind)[1]:
        # A class whose qualified name contains "<" (such as "<locals>") cannot be looked up by name, so a load uses its stored copy.
        return False
    if name_parts(kind) in _CYTHONS_FUNCTIONS:
        return True
    hooks = _HOOKS | _ITEM_HOOKS if issubclass(kind, list | dict) else _HOOKS
    for cls in type.__dict__["__mro__"].__get__(kind):
        module, name = name_parts(cls)
        if module.partition(".")[0] in {"pyarrow", "polars"} and "Extension" in name and cls is not kind:
            return False
        if module.partition(".")[0] in _TRIED or module in _PLAIN:
            if cls is kind:
                return True
            continue
        attributes = type.__dict__["__dict__"].__get__(cls)
        if not _is_python(cls) or not hooks.isdisjoint(attributes) or ("__setattr__" in attributes and "__slots__" in attributes):
            return False
    return True


def _is_python(kind: type) -> bool:
    """Return True if a type was defined by a class statement in Python code, not in an extension module."""
    module = sys.modules.get(name_parts(kind)[0])
    file = getattr(module, "__file__", None) or ""
    return bool(kind.__flags__ & 1 << 9) and not (type(file) is str and file.endswith((".so", ".pyd")))


def _is_of_library(kind: type, code: CodeReader) -> bool:
    return _is_python(kind) and not issubclass(kind, BaseException) and code.owner(name_parts(kind)[0]) is not None


# -- the test load -----------------------------------------------------------------------------------------------------


class _TooLongError(BaseException):
    """Raised when a test load exceeds its time limit.

    It is not an Exception, so that ``except Exception`` in a class of the user does not catch it during the load.
    """


class _DiffersError(Exception):
    """Raised when a test load returns a different value, or ends the process in which it runs."""


class _UndecidedError(Exception):
    """Raised when a value cannot be tested in a separate process, because that process did not start or could not import what the value needs."""


def check(value: Any, encoded: codecs.Encoded, *, key: str, code: CodeReader, witnesses: Witnesses) -> None:
    """Test that a value loads from its stored form as an equal value; do nothing if its types are known to survive.

    Parameters
    ----------
    value
        The value.
    encoded
        The stored form of the value.
    key
        The asset's key, for messages.
    code
        Functions that compute code versions of classes and data versions of values.
    witnesses
        The records of successful tests since the machine booted, to which this test is added if it succeeds.

    Raises
    ------
    UnstorableValueError
        If the load fails, takes too long, or returns a different value. If a single object inside the value is the cause, the message
        names it.
    """
    unsure = [kind for kind in encoded.kinds if not survives(kind)]
    if not unsure:
        return
    if all(_is_of_library(kind, code) for kind in unsure):
        # A library decides which attributes of its objects a load restores. It may omit caches, so the data versions may differ.
        code = replace(code, data_version=None)
    kinds = sorted(
        [(*name_parts(kind), code.version_of(kind)) for kind in unsure if _is_python(kind) or issubclass(kind, BaseException)]
    )
    natives = sorted([name_parts(kind) for kind in unsure if not _is_python(kind) and not issubclass(kind, BaseException)])
    subject = ("comes back", sys.version_info[:3], tuple(kinds), tuple(natives), encoded.classes)
    known = witnesses.holds(*subject)
    if known and encoded.size > SMALL:
        return
    try:
        if encoded.size > MOST_HERE or (natives and not known):
            try:
                _in_separate_process(value, encoded, key, code)
            except _UndecidedError:
                _in_this_process(value, encoded, key, code)
        else:
            _in_this_process(value, encoded, key, code, known=known)
    except (_TooLongError, _DiffersError, ValueUnavailableError) as error:
        raise _unstorable(value, unsure, error, key, code) from (error.__cause__ or error)
    if not known:
        witnesses.add(*subject)


def _in_this_process(value: Any, encoded: codecs.Encoded, key: str, code: CodeReader, *, known: bool = False) -> None:
    if not known:
        _in_forked_copy(encoded, key, code)
    with _limited(SECONDS):
        loaded = _decoded(encoded, key, code)
    _compare(value, loaded)
    if code.data_version is None:
        return
    before, after = code.data_version(value), code.data_version(loaded)
    if before is None or after is None or before == after:
        return
    # The data version of some objects differs at every computation or load, because they contain an address or a time. This is no error.
    with _limited(SECONDS):
        second = code.data_version(_decoded(encoded, key, code))
    if second == after and code.data_version(value) == before:
        raise _DiffersError(f"the loaded {type_name(value)} has different contents")


def _in_forked_copy(encoded: codecs.Encoded, key: str, code: CodeReader) -> None:
    """Test in a forked copy of this process that loading a value neither ends nor blocks the process.

    Raises `_DiffersError` if the load ends the copy, and `_TooLongError` if the load exceeds the time limit. Exceptions of the load are
    ignored, because the later load in this process raises them, too. On systems other than Linux this function does nothing, because a fork
    without exec is not safe there.
    """
    if sys.platform != "linux":
        return
    with warnings.catch_warnings():
        # Python 3.12 and later warn about a fork while other threads run. The child does not need a lock of these threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        reading, writing = os.pipe()
        try:
            process = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            return
    if not process:
        try:
            _load_quietly(encoded, key, code)
            os.write(writing, b"1")
        finally:
            os._exit(0)
    os.close(writing)
    watched = select.poll()
    watched.register(reading, select.POLLIN)
    try:
        answered = watched.poll(SECONDS * 1000)
        survived = bool(answered) and os.read(reading, 1) == b"1"
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        status = _status_of_end(process)
    if not answered:
        raise _TooLongError(f"loading the object takes longer than {SECONDS:g} s")
    if not survived:
        raise _DiffersError(f"loading the object ends the process (exit code {status})")


def _load_quietly(encoded: codecs.Encoded, key: str, code: CodeReader) -> None:
    """Load a value in the forked child, without printing anything and without running the parent's finalizers or trace functions.

    Exceptions of the load are ignored.
    """
    gc.disable()
    sys.settrace(None)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    sys.stdout = sys.stderr = io.StringIO()
    with contextlib.suppress(BaseException):
        _decoded(encoded, key, code)


def _status_of_end(process: int) -> str:
    try:
        return str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    except ChildProcessError:
        # Other code in this process has waited for all child processes.
        return "unknown"


def _decoded(encoded: codecs.Encoded, key: str, code: CodeReader) -> Any:
    # The buffers are copied, because the loaded value must not share memory with the original.
    buffers = [memoryview(bytes(buffer) if buffer.readonly else bytearray(buffer)) for buffer in encoded.buffers]
    loading = Loading(code, libraries=encoded.classes, check=False)
    return codecs.decode(encoded.codec, encoded.stream, buffers, key=key, loading=loading)


def _compare(value: Any, loaded: Any) -> None:
    if type(loaded) is not type(value) and name_parts(type(loaded)) != name_parts(type(value)):
        raise _DiffersError(f"a value of type {type_name(value)} is loaded as type {type_name(loaded)}")
    if column_types(value) != column_types(loaded):
        raise _DiffersError(
            f"the loaded {type_name(value)} has other data types: {column_types(loaded)} instead of {column_types(value)}"
        )


def column_types(value: Any) -> Any:
    """Return the schema of a pyarrow or polars table, or the data type of a pyarrow or polars array; None for any other value."""
    if name_parts(type(value))[0].partition(".")[0] not in {"pyarrow", "polars"}:
        return None
    return getattr(value, "schema", None) or getattr(value, "type", None) or getattr(value, "dtype", None)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `_TooLongError` if the ``with`` block takes longer than ``seconds``.

    The limit uses the alarm signal, so there is no limit outside of the main thread, and none on Windows. If the user has set a timer that uses
    this signal and expires before the limit, no limit is set. If the timer expires later, it continues after the block.
    """
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    user_handler = signal.getsignal(signal.SIGALRM) if usable else None
    user_seconds = signal.getitimer(signal.ITIMER_REAL)[0] if usable else 0.0
    if user_handler is None or 0 < user_seconds < seconds:
        yield
        return

    def over(*_: object) -> None:
        raise _TooLongError(f"loading the object takes longer than {seconds:g} s")

    signal.signal(signal.SIGALRM, over)
    started = time.monotonic()
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, user_handler)
        if remaining:
            signal.setitimer(signal.ITIMER_REAL, max(remaining - (time.monotonic() - started), 1e-3), interval)


# -- in a separate process ---------------------------------------------------------------------------------------------


def _in_separate_process(value: Any, encoded: codecs.Encoded, key: str, code: CodeReader) -> None:
    parts = [memoryview(encoded.stream), *encoded.buffers]
    digest = code.data_version
    request = {
        "key": key,
        "codec": encoded.codec,
        "sizes": [part.nbytes for part in parts],
        "readonly": [part.readonly for part in parts],
        "classes": encoded.classes,
        # In the separate process, classes of the notebook are copies, whose instances have other data versions.
        "digest": f"{digest.__module__}:{digest.__qualname__}" if digest is not None and not encoded.copies else "",
    }
    head = json.dumps(request).encode()
    command = [sys.executable, "-c", f"from {__name__} import load_from_stdin; load_from_stdin()"]
    try:
        process = subprocess.Popen(  # noqa: S603 - this interpreter
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except (OSError, ValueError) as error:
        raise _UndecidedError from error
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, answer = process.stdin, b""

    def feed() -> None:
        with contextlib.suppress(OSError, ValueError):
            stdin.write(len(head).to_bytes(8, "little") + head)
            for part in parts:
                stdin.write(part)
            stdin.close()

    feeder = threading.Thread(target=feed, daemon=True)
    timer = threading.Timer(SECONDS_APART, process.kill)
    timer.daemon = True
    try:
        feeder.start()
        timer.start()
        answer = process.stdout.read()
        code_of_end = process.wait()
    finally:
        late = not timer.is_alive()
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    try:
        result = json.loads(answer)
    except ValueError:
        if late:
            raise _TooLongError(f"loading the object takes longer than {SECONDS_APART:g} s") from None
        raise _DiffersError(f"loading the object ends the process (exit code {code_of_end})") from None
    if result["unknown"]:
        raise _UndecidedError
    if result["error"]:
        raise ValueUnavailableError(result["error"], where=result["where"])
    if tuple(result["kind"]) != name_parts(type(value)):
        raise _DiffersError(f"a value of type {type_name(value)} is loaded as type {'.'.join(result['kind'])}")
    if digest is not None and result["versions"] and result["versions"][0] == result["versions"][1] != digest(value):
        raise _DiffersError(f"the loaded {type_name(value)} has different contents")


def load_from_stdin() -> None:
    """Run the test load in the separate process: read a stored form from standard input, load it, and print the result as JSON."""
    answer = os.fdopen(os.dup(1), "wb")
    # Redirect standard output, so that what the value's classes print does not become part of the JSON.
    os.dup2(2, 1)
    source = sys.stdin.buffer
    request = json.loads(source.read(int.from_bytes(source.read(8), "little")))
    stream, *buffers = [
        _part(source.read(size), readonly) for size, readonly in zip(request["sizes"], request["readonly"], strict=True)
    ]
    result: dict[str, Any] = {"unknown": False, "error": "", "where": "", "kind": (), "versions": ()}
    loading = Loading(libraries=tuple((name, version) for name, version in request["classes"]), check=False)

    def load() -> Any:
        return codecs.decode(
            request["codec"], stream, [_new_copy(buffer) for buffer in buffers], key=request["key"], loading=loading
        )

    try:
        value = load()
        result["kind"] = name_parts(type(value))
        if request["digest"]:
            module, _, name = request["digest"].partition(":")
            digest = getattr(importlib.import_module(module), name)
            first, second = digest(value), digest(load())
            result["versions"] = (first, second) if first is not None else ()
    except ValueUnavailableError as error:
        result |= {
            "error": error.what,
            "where": error.where,
            "unknown": isinstance(error.__cause__, ImportError | AttributeError),
        }
    except BaseException as error:
        result |= {
            "error": "the value cannot be loaded",
            "where": f"{type(error).__name__}: {pickling.error_text(error)}",
        }
    answer.write(json.dumps(result).encode())
    answer.close()
    os._exit(0)


def _part(data: bytes, readonly: bool) -> memoryview:
    return memoryview(data if readonly else bytearray(data))


def _new_copy(part: memoryview) -> memoryview:
    return part if part.readonly else memoryview(bytearray(part))


# -- messages ----------------------------------------------------------------------------------------------------------


def _unstorable(value: Any, unsure: Sequence[type], error: BaseException, key: str, code: CodeReader) -> UnstorableValueError:
    path, offender = _offender(value, unsure, code)
    late = isinstance(error.__cause__, _TooLongError)
    where = str(error.__cause__) if late else error.where if isinstance(error, ValueUnavailableError) else str(error)
    around = (f"{'the' if path else 'a'} {type_name(offender)}", " does not load as an equal object")
    return UnstorableValueError(
        f"the value of {key!r}",
        (f" at {path}" if path else "").join(around),
        where=where,
        remedy=_REMEDY,
        path=path,
        around_path=around,
    )


def _offender(value: Any, unsure: Sequence[type], code: CodeReader) -> tuple[str, Any]:
    """Find, inside a value, an object that fails a test load when it is stored alone. Return the path to this object, and the object.

    Only the first object of each type in ``unsure`` is tested, and only if its stored form has at most `MOST_HERE` bytes. If no tested object fails,
    return an empty path and the value itself.
    """
    for kind in unsure:
        located = path_to(value, lambda item, kind=kind: type(item) is kind)  # type: ignore[misc]  # mypy does not see the default of a lambda
        if located is None or not located[0]:
            continue
        try:
            encoded = codecs.encode(located[1], key="", code=code)
            if encoded.size <= MOST_HERE:
                _in_this_process(located[1], encoded, "", code)
        except (UnstorableValueError, ValueUnavailableError, _DiffersError, _TooLongError):
            return located
    return "", value
