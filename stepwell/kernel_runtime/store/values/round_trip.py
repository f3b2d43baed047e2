"""Whether a value comes back: what is not known to is loaded once before it is stored.

Pickle writes many values that it cannot read again: an exception whose ``__init__`` takes other arguments, a class whose ``__setstate__`` raises or whose
``__getattr__`` needs what is not there yet. Such a value would be reused for ever and fail every step that takes it. So each type in a pickle is
judged once. Types of the libraries whose values are tried for fidelity, and classes without methods that take part in pickling, come back. A value
that holds another type is loaded, and the result compared: the same type, and an equal data version where there is one.

A large value, and one of a type that an extension module defines, is loaded in a process of its own, because it takes its memory a second time,
or may end the process. A small one is loaded here, under a time limit; the first of its types is loaded in a forked copy of this process before, where
it can neither end this process nor keep it waiting for ever. What was found is remembered for the boot by the types, their code and
the versions of their libraries (`objects/checked`); values that fit into a row are loaded every time, because that takes no longer than writing them.
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
"""Bytes up to which a value is loaded each time."""
MOST_HERE = 8 << 20
"""Bytes up to which a value is loaded in this process."""
SECONDS = 10.0
"""How long loading a value here may take."""
SECONDS_APART = 60.0
"""How long it may take in a process of its own, with the imports."""
_REMEDY = "return plain data, arrays or frames; or give its class a __reduce__, or __getstate__ and __setstate__, that make an equal object again"


# -- which types come back ---------------------------------------------------------------------------------------------

_TRIED = frozenset(("numpy", "pandas", "pyarrow", "polars", "scipy", "sklearn", "stepwell"))
"""Libraries whose values are tried for fidelity."""
_PLAIN = frozenset(
    (
        "builtins", "collections", "_collections", "datetime", "decimal", "_decimal", "fractions", "uuid", "pathlib", "pathlib._local",
        "zoneinfo", "array", "ipaddress", "types", "functools", "re", "random", "_random", "itertools", "operator", "_operator", "statistics",
        "abc", "typing", "string", "math", "time", "numbers", "enum",
    )
)  # fmt: skip
"""Modules of the standard library whose types come back."""
_HOOKS = frozenset(
    (
        "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__", "__new__",
        "__getattr__", "__getattribute__", "__class__",
    )
)  # fmt: skip
"""What takes part when an object is pickled or loaded."""
_ITEM_HOOKS = frozenset(("__setitem__", "append", "extend"))
"""What takes part when a list or dict is loaded."""
_CYTHONS_FUNCTIONS = frozenset((("", "cython_function_or_method"), ("", "fused_cython_function")))
"""Types of functions that Cython compiled: such a function is found by its name, like all functions."""
_judged: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def comes_back(kind: type) -> bool:
    """Return whether every object of a type that can be pickled is known to come back."""
    found = _judged.get(kind)
    if found is None:
        found = _judged[kind] = _comes_back(kind)
    return found


def _comes_back(kind: type) -> bool:
    if issubclass(kind, BaseException) or kind in copyreg.dispatch_table or "<" in name_parts(kind)[1]:
        # A class without a name that could be looked up is loaded from its copy.
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
        own = type.__dict__["__dict__"].__get__(cls)
        if not _is_python(cls) or not hooks.isdisjoint(own) or ("__setattr__" in own and "__slots__" in own):
            return False
    return True


def _is_python(kind: type) -> bool:
    """Return whether a type is defined by a class statement, as far as its module tells."""
    module = sys.modules.get(name_parts(kind)[0])
    file = getattr(module, "__file__", None) or ""
    return bool(kind.__flags__ & 1 << 9) and not (type(file) is str and file.endswith((".so", ".pyd")))


def _is_of_library(kind: type, code: CodeReader) -> bool:
    return _is_python(kind) and not issubclass(kind, BaseException) and code.owner(name_parts(kind)[0]) is not None


# -- loading a value once ----------------------------------------------------------------------------------------------


class _TooLongError(BaseException):
    """A time limit is over; no class of the user's may take it for an error of its own."""


class _DiffersError(Exception):
    """A value that loads as something else."""


class _UndecidedError(Exception):
    """Another process could not tell."""


def check(value: Any, encoded: codecs.Encoded, *, key: str, code: CodeReader, witnesses: Witnesses) -> None:
    """Load a value from its stored form, unless that was done for its types.

    Raises
    ------
    UnstorableValueError
        If it does not come back; names the object in it that does not.
    """
    unsure = [kind for kind in encoded.kinds if not comes_back(kind)]
    if not unsure:
        return
    if all(_is_of_library(kind, code) for kind in unsure):
        # What a library's own class leaves out when it is loaded, such as caches, is the library's decision: type and loading count.
        code = replace(code, data_version=None)
    kinds = sorted(
        [
            (*name_parts(kind), code.version_of(kind))
            for kind in unsure
            if _is_python(kind) or issubclass(kind, BaseException)
        ]
    )
    natives = sorted(
        [name_parts(kind) for kind in unsure if not _is_python(kind) and not issubclass(kind, BaseException)]
    )
    what = ("comes back", sys.version_info[:3], tuple(kinds), tuple(natives), encoded.classes)
    known = witnesses.holds(*what)
    if known and encoded.size > SMALL:
        return
    try:
        if encoded.size > MOST_HERE or (natives and not known):
            try:
                _apart(value, encoded, key, code)
            except _UndecidedError:
                _here(value, encoded, key, code)
        else:
            _here(value, encoded, key, code, known=known)
    except (_TooLongError, _DiffersError, ValueUnavailableError) as error:
        raise _unstorable(value, unsure, error, key, code) from (error.__cause__ or error)
    if not known:
        witnesses.add(*what)


def _here(value: Any, encoded: codecs.Encoded, key: str, code: CodeReader, *, known: bool = False) -> None:
    if not known:
        _in_a_copy(encoded, key, code)
    with _limited(SECONDS):
        loaded = _decoded(encoded, key, code)
    _compare(value, loaded)
    if code.data_version is None:
        return
    before, after = code.data_version(value), code.data_version(loaded)
    if before is None or after is None or before == after:
        return
    # Some objects are another one at each look or load: they hold an address, or the time.
    with _limited(SECONDS):
        again = code.data_version(_decoded(encoded, key, code))
    if again == after and code.data_version(value) == before:
        raise _DiffersError(f"a {type_name(value)} comes back with other contents")


def _in_a_copy(encoded: codecs.Encoded, key: str, code: CodeReader) -> None:
    """Load a value in a forked copy of this process: an error if that ends the copy or takes too long.

    Whatever else happens is found out here afterwards. On systems where a fork without an exec is not safe nothing is done.
    """
    if sys.platform != "linux":
        return
    with warnings.catch_warnings():
        # Of 3.12 and later, because of the threads of this process: the copy takes no lock of theirs.
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
        raise _TooLongError(f"loading it takes longer than {SECONDS:g} s")
    if not survived:
        raise _DiffersError(f"loading it ends the process ({status})")


def _load_quietly(encoded: codecs.Encoded, key: str, code: CodeReader) -> None:
    """Load a value in a copy of this process, in which nothing may be printed, collected or left behind."""
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
        # Somebody else waits for all children of this process.
        return "unknown"


def _decoded(encoded: codecs.Encoded, key: str, code: CodeReader) -> Any:
    # What is loaded must not share memory with the value.
    buffers = [memoryview(bytes(each) if each.readonly else bytearray(each)) for each in encoded.buffers]
    loading = Loading(code, written=encoded.classes, check=False)
    return codecs.decode(encoded.codec, encoded.stream, buffers, key=key, loading=loading)


def _compare(value: Any, loaded: Any) -> None:
    if type(loaded) is not type(value) and name_parts(type(loaded)) != name_parts(type(value)):
        raise _DiffersError(f"a {type_name(value)} comes back as a {type_name(loaded)}")
    if encoded_type(value) != encoded_type(loaded):
        raise _DiffersError(f"a {type_name(value)} comes back with the type {encoded_type(loaded)}")


def encoded_type(value: Any) -> Any:
    """Return what Arrow and polars know of the types of a value's columns, None for any other value."""
    if name_parts(type(value))[0].partition(".")[0] not in {"pyarrow", "polars"}:
        return None
    return getattr(value, "schema", None) or getattr(value, "type", None) or getattr(value, "dtype", None)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Let Python code on the main thread run for some seconds at most; a timer of the user's goes on afterwards."""
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGALRM) if usable else None
    theirs = signal.getitimer(signal.ITIMER_REAL)[0] if usable else 0.0
    if before is None or 0 < theirs < seconds:
        # Elsewhere, or where the user's own timer ends it sooner.
        yield
        return

    def over(*_: object) -> None:
        raise _TooLongError(f"loading it takes longer than {seconds:g} s")

    signal.signal(signal.SIGALRM, over)
    started = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3), interval)


# -- in a process of its own -------------------------------------------------------------------------------------------


def _apart(value: Any, encoded: codecs.Encoded, key: str, code: CodeReader) -> None:
    parts = [memoryview(encoded.stream), *encoded.buffers]
    digest = code.data_version
    told = {
        "key": key,
        "codec": encoded.codec,
        "sizes": [part.nbytes for part in parts],
        "readonly": [part.readonly for part in parts],
        "classes": encoded.classes,
        # Classes of the notebook have another identity there.
        "digest": f"{digest.__module__}:{digest.__qualname__}" if digest is not None and not encoded.copies else "",
    }
    head = json.dumps(told).encode()
    command = [sys.executable, "-c", f"from {__name__} import load_apart; load_apart()"]
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
        found = json.loads(answer)
    except ValueError:
        if late:
            raise _TooLongError(f"loading it takes longer than {SECONDS_APART:g} s") from None
        raise _DiffersError(f"loading it ends the process ({code_of_end})") from None
    if found["unknown"]:
        raise _UndecidedError
    if found["error"]:
        raise ValueUnavailableError(found["error"], where=found["where"])
    if tuple(found["kind"]) != name_parts(type(value)):
        raise _DiffersError(f"a {type_name(value)} comes back as a {'.'.join(found['kind'])}")
    if digest is not None and found["versions"] and found["versions"][0] == found["versions"][1] != digest(value):
        raise _DiffersError(f"a {type_name(value)} comes back with other contents")


def load_apart() -> None:
    """Load the value that standard input holds, and write what it became to standard output: the other end of `check`."""
    answer = os.fdopen(os.dup(1), "wb")
    # What the value's classes print must not be in the answer.
    os.dup2(2, 1)
    source = sys.stdin.buffer
    told = json.loads(source.read(int.from_bytes(source.read(8), "little")))
    stream, *buffers = [
        _part(source.read(size), readonly) for size, readonly in zip(told["sizes"], told["readonly"], strict=True)
    ]
    found: dict[str, Any] = {"unknown": False, "error": "", "where": "", "kind": (), "versions": ()}
    loading = Loading(written=tuple((name, version) for name, version in told["classes"]), check=False)

    def load() -> Any:
        return codecs.decode(
            told["codec"], stream, [_again(each) for each in buffers], key=told["key"], loading=loading
        )

    try:
        value = load()
        found["kind"] = name_parts(type(value))
        if told["digest"]:
            module, _, name = told["digest"].partition(":")
            digest = getattr(importlib.import_module(module), name)
            first, second = digest(value), digest(load())
            found["versions"] = (first, second) if first is not None else ()
    except ValueUnavailableError as error:
        found |= {
            "error": error.what,
            "where": error.where,
            "unknown": isinstance(error.__cause__, ImportError | AttributeError),
        }
    except BaseException as error:
        found |= {"error": "it cannot be loaded", "where": f"{type(error).__name__}: {pickling.said(error)}"}
    answer.write(json.dumps(found).encode())
    answer.close()
    os._exit(0)


def _part(data: bytes, readonly: bool) -> memoryview:
    return memoryview(data if readonly else bytearray(data))


def _again(part: memoryview) -> memoryview:
    return part if part.readonly else memoryview(bytearray(part))


# -- what to say -------------------------------------------------------------------------------------------------------


def _unstorable(
    value: Any, unsure: Sequence[type], error: BaseException, key: str, code: CodeReader
) -> UnstorableValueError:
    path, offender = _offender(value, unsure, code)
    late = isinstance(error.__cause__, _TooLongError)
    where = str(error.__cause__) if late else error.where if isinstance(error, ValueUnavailableError) else str(error)
    held = f"the {type_name(offender)} at {path}" if path else f"a {type_name(offender)}"
    return UnstorableValueError(
        f"the value of {key!r} cannot be stored: {held} does not come back when it is loaded",
        where=where,
        remedy=_REMEDY,
        path=path,
    )


def _offender(value: Any, unsure: Sequence[type], code: CodeReader) -> tuple[str, Any]:
    """Return the object in a value that does not come back and its path; the value itself where it cannot be told."""
    for kind in unsure:
        found = path_to(value, lambda item, kind=kind: type(item) is kind)  # type: ignore[misc]  # mypy knows no default of a lambda
        if found is None or not found[0]:
            continue
        try:
            encoded = codecs.encode(found[1], key="", code=code)
            if encoded.size <= MOST_HERE:
                _here(found[1], encoded, "", code)
        except (UnstorableValueError, ValueUnavailableError, _DiffersError, _TooLongError):
            return found
    return "", value
