"""The versions of a key, how one is named, and what loading one gives."""

import datetime as dt
import time

import pandas as pd
import pytest

import stepwell
from stepwell import asset
from stepwell.kernel_runtime.errors import (
    InvalidInvocationError,
    UnknownKeyError,
    UnknownVersionError,
    ValueUnavailableError,
)
from stepwell.kernel_runtime.session import get_session

VALUE = 1


@asset
def clean():
    return pd.DataFrame({"id": [1, 2, 3], "x": [VALUE, 2, 3]})


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Make values 1, 2, 2, 3 in a store; return it."""
    store = get_session().open(tmp_path / "store")
    for value in (1, 2, 2, 3):
        monkeypatch.setitem(globals(), "VALUE", value)
        stepwell.materialize([clean], store=store, force=True)
    yield store
    store.close()


def first(store, version):
    return stepwell.load("clean", version=version, store=store).x[0]


def test_equal_neighbours_are_one_version(made):
    found = stepwell.versions("clean", store=made)
    assert [version.number for version in found] == [-1, -2, -3]
    assert [version.times for version in found] == [1, 2, 1]
    assert [version.current for version in found] == [True, False, False]
    assert all(version.available for version in found)
    newest = found[0]
    assert (newest.type_name, newest.summary) == ("pandas.DataFrame", "3 × 2")
    assert newest.run_id == made.runs(limit=1)[0].run_id
    assert newest.first <= newest.created <= time.time()
    assert found[1].first < found[1].created
    assert len(stepwell.versions(clean, store=made, all=True)) == 4
    assert str(found).count("\n") == 2
    assert "2 times since" in str(found)
    assert found[0].as_dict()["id"] == newest.id


def test_a_version_is_named_by_number_identifier_or_time(made):
    found = stepwell.versions("clean", store=made)
    assert [first(made, number) for number in (-1, -2, -3, 0, 1, 2, "-2", "0")] == [3, 2, 1, 1, 2, 3, 2, 1]
    assert [first(made, version.id) for version in found] == [3, 2, 1]
    assert first(made, found[1].id[:-2]) == 2
    # Also one of equal neighbours.
    assert first(made, stepwell.versions("clean", store=made, all=True)[2].id) == 2
    moment = dt.datetime.fromtimestamp(found[1].created)  # noqa: DTZ006 - a local time without a zone
    assert first(made, moment) == 2
    assert first(made, moment.astimezone(dt.UTC)) == 2
    assert first(made, moment.isoformat()) == 2
    assert first(made, moment.isoformat(" ")) == 2
    assert first(made, dt.datetime.now().astimezone().date() + dt.timedelta(days=1)) == 3
    assert first(made, "2999-01-01") == 3


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (-4, "no version number -4"), (3, "no version number 3"), ("zzz", "neither the beginning of an identifier nor a time"), ("", "neither"),
        ("2001-01-01", "had no version at"), ("2001-13-01", "neither"), ("0" * 40, "neither"),
    ],
)  # fmt: skip
def test_a_version_that_there_is_not_is_refused(made, version, message):
    with pytest.raises(UnknownVersionError, match=message):
        first(made, version)


def test_an_ambiguous_beginning_names_those_that_begin_so(made):
    with pytest.raises(UnknownVersionError, match="identifiers of 4 versions") as error:
        first(made, made.history("clean")[0].id[:7])
    assert made.history("clean")[0].id in str(error.value)


@pytest.mark.parametrize("version", [True, 1.5, ["x"]])
def test_what_can_be_no_version_is_refused(made, version):
    with pytest.raises(InvalidInvocationError, match="identifier, a number or a time"):
        first(made, version)


def test_unknown_keys_name_the_nearest(made):
    for ask in (stepwell.versions, stepwell.diff, lambda key, **more: stepwell.load(key, version=-1, **more)):
        with pytest.raises(UnknownKeyError, match="clean"):
            ask("claen", store=made)


def test_a_version_whose_file_is_gone_says_so(tmp_path):
    @asset
    def large():
        return list(range(100_000))

    store = get_session().open(tmp_path / "store")
    stepwell.materialize([large], store=store)
    item = made = store.history("large")[0]
    (store.directory / "objects" / item.value.object_name).unlink()
    (version,) = stepwell.versions("large", store=store)
    assert not version.available
    assert "not available" in str(version)
    with pytest.raises(ValueUnavailableError):
        stepwell.load("large", version=made.id, store=store)


def test_versions_are_filtered_by_notebook_and_partition(tmp_path):
    from tests.store import rows

    store = get_session().open(tmp_path / "store")
    for notebook, partition, value in (("a", "", 1), ("b", "p", 1), ("b", "q", 2), ("b", "p", 1)):
        made = rows.made(store, "k", value, notebook=notebook, partition=partition, run_id=f"{notebook}{value}{time.time()}")
        rows.record(store, made).wait()
    assert [(v.notebook, v.partition, v.times) for v in stepwell.versions("k", store=store)] == [
        ("b", "p", 2),
        ("b", "q", 1),
        ("a", "", 1),
    ]
    assert len(stepwell.versions("k", notebook="b", partition="q", store=store)) == 1
    assert stepwell.load("k", version=-1, notebook="a", store=store) == 1
    with pytest.raises(UnknownVersionError):
        stepwell.load("k", version=-1, notebook="c", store=store)


def test_inside_a_step_only_an_identifier_names_a_version(made):
    newest = made.history("clean")[0].id

    @asset
    def reader():
        return stepwell.load("clean", version=newest).x.tolist()

    @asset
    def careless():
        return stepwell.load("clean", version=-1)

    result = stepwell.materialize([reader], store=made)
    assert result.value("reader") == [3, 2, 3]
    with pytest.raises(InvalidInvocationError, match="by its identifier"):
        stepwell.materialize([careless], store=made)


def test_the_newest_two_that_differ_are_compared(made):
    found = stepwell.diff("clean", store=made)
    assert (found.details.changed, found.details.columns[0].examples) == (1, (("1", "2", "3"),))
    assert stepwell.diff("clean", 0, store=made).details.columns[0].examples == (("1", "1", "3"),)
    assert stepwell.diff("clean", 0, 1, store=made).details.columns[0].examples == (("1", "1", "2"),)
    assert stepwell.diff("clean", -1, -1, store=made).equal
    assert stepwell.diff("clean", store=made).rows()["x (before)"].tolist() == [2]


def test_a_key_with_one_version_cannot_be_compared(tmp_path):
    @asset
    def one():
        return 1

    stepwell.materialize([one], store=tmp_path / "store")
    with pytest.raises(UnknownVersionError, match="only one version"):
        stepwell.diff("one", store=tmp_path / "store")
