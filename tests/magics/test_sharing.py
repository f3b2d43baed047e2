"""``%stepwell pack`` and ``%stepwell trust``."""

import pytest

from stepwell.kernel_runtime.store import packs
from stepwell.kernel_runtime.store.store import open_store
from tests.store import rows


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A pack of somebody else's."""
    with monkeypatch.context() as other:
        other.setenv("STEPWELL_KEY_FILE", str(tmp_path / "another"))
        store = open_store(tmp_path / "theirs")
        rows.record(store, rows.made(store, "model", {"w": [1, 2]})).wait()
        packs.write_pack(store, ["model"], tmp_path / "theirs.zip")
        store.close()
    return tmp_path / "theirs.zip"


def test_a_pack_of_ones_own_is_written_and_taken_over_without_a_question(notebook, tmp_path):
    notebook("%%asset raw\n[1, 2]")
    (line,) = notebook(f"%stepwell pack raw {tmp_path / 'out.zip'}").lines
    assert line.startswith(f"{tmp_path / 'out.zip'}: 1 value, ")
    assert notebook(f"%stepwell trust {tmp_path / 'out.zip'}").lines == ["trusted from now on: 1 value"]
    assert notebook("%stepwell trust --all").lines == ["no value was signed with another key"]


def test_what_another_key_signed_is_shown_and_taken_over_with_yes(notebook, theirs):
    head, value, warning, end = notebook(f"%stepwell trust {theirs}").lines
    assert head.startswith(f"{theirs}: 1 value, ")
    assert value.split()[0] == "model"
    assert warning == "loading 1 of these values can run code that was stored with them"
    assert "--yes" in end
    assert notebook.run("%stepwell load model").error is not None
    assert notebook(f"%stepwell trust {theirs} --yes").lines == ["trusted from now on: 1 value"]
    notebook("%stepwell load model")
    assert notebook.ns["model"] == {"w": [1, 2]}


def test_a_line_that_says_nothing_is_refused(notebook):
    assert "--all" in str(notebook.run("%stepwell trust").error)
    assert notebook.run("%stepwell pack out.zip").error is not None
