"""What cannot come back is an error that names the asset, the type and the remedy; notebook classes go by name."""

import asyncio
import contextlib
import pickle
import re
import socket
import sqlite3
import sys
import threading
import types
from pathlib import Path

import duckdb
import polars as pl
import pytest

from stepwell.kernel_runtime.errors import UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.store.store import open_store


def local_function():
    def inner():
        return 1

    return inner


def local_class():
    class Inner:
        pass

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
    "lambda": (lambda: lambda: 1, "a lambda", "function with def"),
    "local function": (local_function, "inner", "cell of its own"),
    "local class": (local_class, "Inner", "cell of its own"),
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


def test_a_value_nested_too_deeply_is_refused(store):
    with pytest.raises(UnstorableValueError):
        store.put(deep(), key="a", memo_key="m")


@pytest.fixture
def notebook(monkeypatch):
    """A ``__main__`` of our own, and its classes."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    def define(source):
        exec(source, main.__dict__)
        return main

    return define


POINT = "class Point:\n    def __init__(self, x): self.x = x\n    class Inner: pass\ndef double(x): return 2 * x"


def version_of(found):
    return f"version of {found.__qualname__} {getattr(found, 'edition', 1)}"


def test_classes_and_functions_of_the_notebook_go_by_name(store, notebook):
    store = open_store(store.directory, class_version=version_of)
    main = notebook(POINT)
    stored = store.put([main.Point(1), main.Point(2), main.double, main.Point.Inner()], key="a", memo_key="m")
    assert stored.classes == (
        ("__main__.Point", "version of Point 1"),
        ("__main__.Point.Inner", "version of Point.Inner 1"),
        ("__main__.double", "version of double 1"),
    )
    back = store.get(stored, key="a")
    assert [back[0].x, back[1].x, back[2]] == [1, 2, main.double]
    assert type(back[0]) is main.Point


def test_plain_data_names_no_classes(store):
    assert store.put({"a": [1, (2.0, "x")]}, key="a", memo_key="m").classes == ()


def test_without_its_class_a_value_is_unavailable(store, notebook):
    main = notebook(POINT)
    stored = store.put(main.Point(1), key="a", memo_key="m")
    del main.Point
    with pytest.raises(ValueUnavailableError, match="run the cell that defines Point"):
        store.get(stored, key="a")


def test_with_another_class_of_the_name_a_value_is_unavailable(store, notebook):
    store = open_store(store.directory, class_version=version_of)
    main = notebook(POINT)
    stored = store.put(main.Point(1), key="a", memo_key="m")
    notebook(POINT + "\nPoint.edition = 2")
    with pytest.raises(ValueUnavailableError, match="another Point"):
        store.get(stored, key="a")
    notebook(POINT)
    assert store.get(stored, key="a").x == 1


def test_an_instance_of_a_class_defined_again_is_refused(store, notebook):
    old = notebook(POINT).Point(1)
    notebook(POINT)
    with pytest.raises(UnstorableValueError, match="defined again"):
        store.put(old, key="a", memo_key="m")


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
