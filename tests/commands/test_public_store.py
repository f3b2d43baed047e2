"""The public `Store`: the commands as methods, on one directory."""

import inspect

import pytest

import stepwell
from stepwell import asset
from stepwell.errors import UnknownKeyError


@pytest.fixture
def store(tmp_path):
    @asset
    def raw():
        return [3, 1, 2]

    with stepwell.open_store(tmp_path / "kept") as store:
        stepwell.materialize([raw], store=store)
        yield store


def test_every_command_that_takes_a_store_is_a_method(store, tmp_path):
    assert store.load("raw") == [3, 1, 2]
    assert len(store.versions("raw")) == 1
    assert store.sql("SELECT count(*) AS n FROM stepwell.runs", frame="pyarrow").to_pylist() == [{"n": 1}]
    assert store.rename("raw", "first").versions == 1
    assert store.keep("first", versions=2)["first"].versions == 2
    assert store.pack("first", tmp_path / "out.zip").counted == "1 value"
    assert store.gc(dry_run=True).dry_run
    assert store.doctor(quick=True)
    assert store.forget("first").dry_run
    assert store.load("first") == [3, 1, 2]
    assert not store.forget("first", yes=True).dry_run
    with pytest.raises(UnknownKeyError):
        store.versions("first")


def test_it_lists_its_methods_and_has_no_others(store):
    assert {"keep", "forget", "gc", "rename", "pack", "trust", "doctor", "versions"} <= set(dir(store))
    assert inspect.getdoc(store.keep) == inspect.getdoc(stepwell.keep)
    for name in ("store", "code", "put", "_private"):
        with pytest.raises(AttributeError):
            getattr(store, name)


def test_opening_makes_a_store_unless_told_otherwise(tmp_path):
    with pytest.raises(stepwell.StepwellError, match="there is no store"):
        stepwell.Store(tmp_path / "nowhere", create=False)
    assert stepwell.open_store(tmp_path / "made").directory == tmp_path / "made"
    assert (tmp_path / "made" / "catalog.duckdb").exists()
