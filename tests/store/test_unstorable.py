"""What cannot come back is an error that names the asset, the type and the remedy."""

import asyncio
import contextlib
import pickle
import re
import socket
import sqlite3
import sys
import threading
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from stepwell.kernel_runtime.errors import UnstorableValueError, ValueUnavailableError


def lambda_with_a_generator():
    held = (i for i in range(3))
    return lambda: held


def function_with_a_lock():
    lock = threading.Lock()

    def inner():
        return lock

    return inner


def class_with_a_connection():
    class Inner:
        connection = sqlite3.connect(":memory:")

    return Inner()


class Raises:
    def __reduce__(self):
        raise RuntimeError("no state for you")


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


CASES = {
    "lambda that holds a generator": (lambda_with_a_generator, "a lambda", "do not use values in it that cannot be stored"),
    "function with a lock": (function_with_a_lock, "inner", "do not use values in it that cannot be stored"),
    "class with a connection": (class_with_a_connection, "Inner", "top level of a cell"),
    "iterator": (lambda: zip([1], (i for i in range(3)), strict=False), "generator", "list"),
    "thread": (threading.Thread, "threading.Thread|_thread.lock|_thread._ThreadHandle", "out of the value"),
    "memoryview": (lambda: memoryview(b"abc"), "memoryview", "bytes"),
    "tensor of Arrow": (lambda: pa.Tensor.from_numpy(np.zeros(2)), "pyarrow.lib.Tensor|pyarrow.Tensor", "plain data"),
    "generator": (lambda: (i for i in range(3)), "generator", "list"),
    "coroutine": (lambda: asyncio.sleep(0), "coroutine", "await"),
    "lock": (threading.Lock, "lock", "out of the value"),
    "file": (Path(__file__).open, "TextIOWrapper", "path"),
    "socket": (socket.socket, "socket.socket", "step that uses it"),
    "sqlite": (lambda: sqlite3.connect(":memory:"), "sqlite3.Connection", "step that uses it"),
    "module": (lambda: re, "module re", "not the module"),
    "lazy frame": (lambda: pl.LazyFrame({"a": [1]}), "polars.LazyFrame", "collect"),
    "relation": (lambda: duckdb.sql("SELECT 1"), "DuckDBPyRelation", r"\.df\(\)"),
    "object column": (lambda: pl.DataFrame({"a": [object()]}), "polars.DataFrame", "cast"),
    "reduce raises": (Raises, "Raises", "__getstate__"),
}


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"x": [value]}], ids=["alone", "inside"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_its_type_and_a_remedy(store, name, wrap):
    make, said, remedy = CASES[name]
    value = make()
    with pytest.raises(UnstorableValueError) as caught:
        store.put(wrap(value), key="flights", memo_key="m")
    assert "'flights'" in caught.value.what
    assert re.search(said, str(caught.value))
    assert re.search(remedy, str(caught.value)), str(caught.value)
    if hasattr(value, "close"):
        with contextlib.suppress(Exception):
            value.close()


class Refused(Exception):
    def __init__(self, code, *, where):
        super().__init__(f"{code} at {where}")
        self.code, self.where = code, where


def test_an_exception_that_pickle_cannot_make_again_is_stored_for_cells_only(store):
    # The step of a function may run in another process, from which values come back by pickle; a cell runs in its kernel.
    with pytest.raises(UnstorableValueError, match=r"'flights'.*Refused") as caught:
        store.put([1, Refused(3, where="x")], key="flights", memo_key="m", portable=True)
    assert "super().__init__()" in str(caught.value)
    found = store.get(store.put([1, Refused(3, where="x")], key="flights", memo_key="m"), key="flights")
    assert (found[1].code, found[1].where, str(found[1])) == (3, "x", "3 at x")
    portable = store.put([KeyError("k"), OSError(2, "no", "f")], key="flights", memo_key="n", portable=True)
    assert store.get(portable, key="flights")[1].filename == "f"


def test_a_value_nested_too_deeply_is_refused(store):
    with pytest.raises(UnstorableValueError):
        store.put(deep(), key="a", memo_key="m")


POINT = "class Point:\n    def __init__(self, x): self.x = x"


def test_a_class_of_a_module_goes_by_its_module(store, tmp_path, monkeypatch):
    (tmp_path / "geometry.py").write_text(POINT)
    monkeypatch.syspath_prepend(tmp_path)
    import geometry

    stored = store.put(geometry.Point(3), key="a", memo_key="m")
    assert stored.classes == ()
    assert store.get(stored, key="a").x == 3
    monkeypatch.delitem(sys.modules, "geometry")
    (tmp_path / "geometry.py").unlink()
    with pytest.raises(ValueUnavailableError, match="No module named 'geometry'") as caught:
        store.get(stored, key="a")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_the_stream_is_an_ordinary_pickle(store):
    assert pickle.loads(store.put([1, 2], key="a", memo_key="m").inline[2:]) == [1, 2]
