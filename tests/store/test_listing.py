"""What a list costs: the number of statements does not depend on how many keys, versions or steps there are."""

import json

import pytest

import stepwell
from stepwell import asset
from stepwell.kernel_runtime.session import Session
from stepwell.kernel_runtime.session.history import read_versions
from stepwell.kernel_runtime.store.catalog import tables
from stepwell.kernel_runtime.store.catalog.tables import read_all_current
from stepwell.kernel_runtime.store.store import open_store


@pytest.fixture
def statements(monkeypatch):
    """Return a function that counts the statements that a call makes in the catalog."""
    rows_of, made = tables.rows_of, []

    def counted(connection, name, text, values=()):
        made.append(text)
        return rows_of(connection, name, text, values)

    monkeypatch.setattr(tables, "rows_of", counted)

    def count(call):
        made.clear()
        call()
        return len(made)

    return count


def filled(directory, keys, versions=2):
    """Materialize assets in some versions; return their session, in which an edit has made each stale."""
    space = {"asset": asset, "VERSION": 0, "__name__": "__main__"}
    for at in range(keys):
        exec(f"@asset\ndef a{at}():\n    return VERSION, {at}\n", space)
    session = Session()
    session.namespace = space
    session.use(directory)
    for at in range(keys):
        session.registry.register(space[f"a{at}"])
    for space["VERSION"] in range(versions):
        session.materialize()
    space["VERSION"] = -1
    return session


def test_lists_of_many_keys_cost_as_many_statements_as_those_of_few(tmp_path, statements):
    def costs(keys, versions):
        session = filled(tmp_path / f"store{keys}", keys, versions)
        store = session.store
        found = {
            "status": statements(lambda: str(stepwell.status(store=store))),
            "status --json": statements(lambda: stepwell.status(store=store).as_dict()),
            "runs": statements(lambda: stepwell.runs(100, store=store)),
            "versions": statements(lambda: read_versions(store, "a1")),
            "lineage of stale assets": statements(lambda: session.inspect().lineage()),
        }
        assert {node.state for node in session.inspect().lineage().nodes} == {"stale"}
        store.close()
        return found

    few = costs(3, 2)
    assert costs(12, 5) == few
    # One of them reads the current materializations that were made by other code.
    assert few["status"] <= 6


def test_a_list_has_each_key_with_what_is_current_by_key_newest_first(tmp_path, python):
    store = open_store(tmp_path / "store")

    @asset
    def small():
        return "x" * 10

    @asset
    def large():
        return "y" * 100_000

    for each in (large, small):
        stepwell.materialize([each], store=store)
    found = store.catalog.ask(read_all_current)
    assert [each.key for each in found] == ["large", "small"]
    for each in found:
        (same,) = store.current(each.key)
        assert each.materialization.id == same.materialization.id
        assert each.notebook == same.notebook
        # Values are no part of a list.
        assert each.materialization.value.inline is None
        assert each.materialization.value.digest == same.materialization.value.digest
    # Nothing is defined here: what is stored is listed.
    text = python(f"""
        import stepwell
        from stepwell.commands.command import find_command

        print(find_command("status").json([stepwell.status(store={str(store.directory)!r})]))
    """)
    assert [each["key"] for each in json.loads(text)["assets"]] == ["large", "small"]
    store.close()
