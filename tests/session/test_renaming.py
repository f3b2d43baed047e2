"""What is stored for a key is carried over to another name, and reused only where nothing but the name changed."""

import pytest

import stepwell
from stepwell import AssetOut, asset, graph_asset, multi_asset, op
from stepwell.kernel_runtime.errors import (
    InvalidDefinitionError,
    InvalidInvocationError,
    InvariantViolationError,
    UnknownKeyError,
)
from stepwell.kernel_runtime.session import get_session
from stepwell.kernel_runtime.store.signing import read_outputs

RATE = 1


@pytest.fixture
def store(tmp_path):
    store = get_session().open(tmp_path / "store")
    yield store
    store.close()


def helper(value):
    return value * RATE


@asset
def old():
    return helper(3)


def renamed():
    @asset
    def new():
        return helper(3)

    return new


def statuses(*targets, store):
    return {step.key: step.status for step in stepwell.materialize(list(targets), store=store).steps}


def test_a_renamed_asset_is_not_computed_again(store):
    statuses(old, store=store)
    made = store.history("old")[0]
    assert stepwell.rename("old", "new", store=store).versions == 1
    assert store.keys() == ["new"]
    assert statuses(renamed(), store=store) == {"new": "reused"}
    newest = store.current("new")[0].materialization
    assert (newest.created, newest.seconds, newest.data_version) == (made.created, made.seconds, made.data_version)
    assert stepwell.load("new", store=store) == 3
    assert statuses(renamed(), store=store) == {"new": "reused"}
    assert stepwell.why("new", definitions=[renamed()], store=store).state == "fresh"
    # Nothing was deleted: going back finds everything.
    assert statuses(old, store=store) == {"old": "reused"}


def test_a_look_finds_it_fresh(store):
    statuses(old, store=store)
    stepwell.rename("old", "new", store=store)
    assert stepwell.why("new", definitions=[renamed()], store=store).state == "fresh"


def test_what_else_changed_makes_it_stale_with_the_true_cause(store, monkeypatch):
    statuses(old, store=store)
    stepwell.rename("old", "new", store=store)
    monkeypatch.setitem(globals(), "RATE", 2)
    found = stepwell.why("new", definitions=[renamed()], store=store)
    assert found.state == "stale"
    assert "RATE: 1 -> 2" in str(found)
    assert "changed" not in str(found)
    assert len(found.steps[0].reasons) == 1
    assert stepwell.load("new", store=store) == 3
    monkeypatch.setitem(globals(), "RATE", 1)
    assert statuses(renamed(), store=store) == {"new": "reused"}


def test_another_body_is_not_taken_for_the_same(store):
    statuses(old, store=store)
    stepwell.rename("old", "new", store=store)

    @asset
    def new():
        return helper(4)

    assert stepwell.why("new", definitions=[new], store=store).state == "stale"
    assert statuses(new, store=store) == {"new": "executed"}


def test_the_whole_history_comes_along(store, monkeypatch):
    for rate in (1, 2, 3):
        monkeypatch.setitem(globals(), "RATE", rate)
        statuses(old, store=store)
    assert stepwell.rename("old", "new", store=store).versions == 3
    assert [stepwell.load("new", version=number, store=store) for number in (0, 1, 2)] == [3, 6, 9]
    assert [version.run_id for version in stepwell.versions("new", store=store)] == [
        version.run_id for version in stepwell.versions("old", store=store)
    ]


def test_a_graph_backed_asset_comes_with_its_steps(store):
    @op
    def fetch():
        return 5

    @op
    def keep(rows):
        print("kept")
        return rows + 1

    @graph_asset
    def first():
        return keep(fetch())

    assert statuses(first, store=store) == {"first.fetch": "executed", "first.keep": "executed"}

    @graph_asset
    def second():
        return keep(fetch())

    stepwell.rename("first", "second", store=store)
    assert statuses(second, store=store) == {"second.fetch": "reused", "second.keep": "reused"}
    item = store.current("second")[0].materialization
    assert "kept" in read_outputs(store.catalog, store.signer, item.run_id, item.step_key)[0].text


def test_what_follows_by_order_only_is_kept_apart(store):
    runs = []

    @asset
    def up():
        runs.append(1)

    @asset(deps=["up"])
    def down():
        return 1

    statuses(up, down, store=store)
    stepwell.rename("down", "below", store=store)

    @asset(deps=["up"])
    def below():
        return 1

    assert statuses(up, below, store=store)["below"] == "reused" or len(runs) == 2


def test_an_output_of_a_multi_asset_is_refused(store):
    @multi_asset(outs={"left": AssetOut(), "right": AssetOut()})
    def both():
        return 1, 2

    statuses(both, store=store)
    with pytest.raises(InvariantViolationError, match="one of several outputs"):
        stepwell.rename("left", "west", store=store)
    assert store.keys() == ["left", "right"]


def test_what_cannot_be_renamed_is_refused(store):
    statuses(old, renamed(), store=store)
    with pytest.raises(InvariantViolationError, match="already has stored versions"):
        stepwell.rename("old", "new", store=store)
    with pytest.raises(UnknownKeyError, match="did you mean old"):
        stepwell.rename("olt", "x", store=store)
    with pytest.raises(InvalidInvocationError, match="equals the old key"):
        stepwell.rename("old", "old", store=store)
    for bad in ("a.b", "", "a//b"):
        with pytest.raises(InvalidDefinitionError):
            stepwell.rename("old", bad, store=store)
    with pytest.raises(InvalidInvocationError, match="is a step"):
        stepwell.rename("old.step", "x", store=store)
    assert store.keys() == ["new", "old"]


def test_another_notebooks_key_is_its_own(store):
    from tests.store import rows

    for notebook in ("a.ipynb", "b.ipynb"):
        rows.record(store, rows.made(store, "k", notebook, notebook=notebook)).wait()
    with pytest.raises(InvariantViolationError, match="several other notebooks"):
        stepwell.rename("k", "l", store=store)
