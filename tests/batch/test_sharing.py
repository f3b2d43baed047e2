"""``stepwell pack`` and ``stepwell trust``: what they print, and their exit codes."""

import io
import json

import numpy as np
import pytest

from stepwell.batch.command_line import main
from stepwell.kernel_runtime.records.maintenance import Offer
from stepwell.kernel_runtime.store.store import open_store
from tests.store.rows import made, record

EVIL = "\x1b[2Jx<script>"


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder with the store of somebody and a pack of it, seen by somebody else."""
    monkeypatch.chdir(tmp_path)
    store = open_store("ours")
    record(store, made(store, "model", {"w": np.arange(20_000)}))
    record(store, made(store, EVIL, [1])).wait()
    assert main(["pack", "model", EVIL, "out.zip", "--store", "ours"]) == 0
    store.close()
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "their key"))
    return tmp_path


def test_a_pack_is_told_and_taken_over_after_a_yes(out, capsys, monkeypatch):
    capsys.readouterr()
    assert main(["trust", "out.zip", "--store", "theirs"]) == 6
    said = capsys.readouterr()
    assert said.out == ""
    head, first, second, warning, end = said.err.splitlines()
    assert head.startswith("out.zip: 2 values, 160.1 kB, signed with the key ")
    assert "\x1b" not in said.err
    assert {first.split()[0], second.split()[0]} == {"model", "\\x1b[2Jx<script>"}
    assert warning == "loading 2 of these values can run code that was stored with them"
    assert "--yes" in end
    assert not (out / "theirs").exists()

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for answer, code in (("n\n", 6), ("", 6), ("y\n", 0)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert main(["trust", "out.zip", "--store", "theirs"]) == code
    said = capsys.readouterr()
    assert said.err.endswith("[y/N] ")
    assert said.out == "trusted from now on: 2 values\n"
    store = open_store("theirs", create=False)
    (row,) = store.current("model")
    assert store.get(row.materialization.value, key="model")["w"][7] == 7
    store.close()


def test_machines_are_told_in_json(out, capsys):
    capsys.readouterr()
    assert main(["trust", "out.zip", "--store", "theirs", "--json"]) == 6
    told = json.loads(capsys.readouterr().out)
    assert (told["trusted"], told["own"], len(told["values"])) == (False, False, 2)
    assert main(["trust", "out.zip", "--store", "theirs", "--json", "--yes"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["trusted"]
    assert {value["key"] for value in told["values"]} == {"model", EVIL}
    assert main(["pack", "model", "again.zip", "--store", "theirs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["own"]
    # Who packed it need not be asked.
    assert main(["trust", "again.zip", "--store", "third"]) == 0


def test_values_in_the_store_are_taken_over_by_key_or_all(out, capsys):
    assert main(["trust", "model", "--store", "ours"]) == 6
    assert main(["trust", "model", "--store", "ours", "--yes"]) == 0
    assert main(["trust", "--all", "--store", "ours"]) == 6
    assert main(["trust", "--all", "--store", "ours", "-y"]) == 0
    capsys.readouterr()
    assert main(["trust", "--all", "--store", "ours"]) == 0
    assert capsys.readouterr().out == "no value was signed with another key\n"


def test_an_offer_without_a_signature_says_so():
    assert str(Offer("ours", "", True, ())).startswith("ours: 0 values, 0 B, not signed\n")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["trust"], 2, "trust takes one file"),
        (["trust", "out.zip", "model"], 2, "trust takes one file"),
        (["trust", "model", "--all"], 2, "trust takes one file"),
        (["trust", "none.zip"], 2, "there is no pack"),
        (["trust", "modle", "--store", "ours"], 2, "did you mean model"),
        (["trust", "model", "--store", "nowhere"], 5, "there is no store"),
        (["pack", "modle", "o.zip", "--store", "ours"], 2, "did you mean model"),
        (["pack", "model", "no/o.zip", "--store", "ours"], 2, "cannot"),
        (["pack", "o.zip"], 2, "see stepwell pack --help"),
    ],
)
def test_bad_input_is_one_error(out, capsys, words, code, says):
    before = sorted(path.name for path in out.iterdir())
    assert main(words) == code
    assert says in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir() if path.name != "their key") == before
