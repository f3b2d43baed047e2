"""stepwell versions, diff, keep, gc, forget: on the command line."""

import json

import pytest

from stepwell.batch.command_line import main
from stepwell.kernel_runtime.store.store import open_store
from tests.store import rows


@pytest.fixture
def directory(tmp_path):
    store = open_store(tmp_path / "store")
    for number in range(3):
        rows.record(store, rows.made(store, "clean", {"n": number}, run_id=f"r{number}", memo_key=f"m{number}")).wait()
    store.close()
    return str(tmp_path / "store")


@pytest.fixture
def run(directory, capsys):
    def run(*arguments, code=0):
        capsys.readouterr()
        assert main([*arguments, "--store", directory]) == code
        out = capsys.readouterr()
        return json.loads(out.out) if "--json" in arguments and out.out else out.out + out.err

    return run


def test_versions(run):
    assert len(run("versions", "clean").splitlines()) == 3
    found = run("versions", "clean", "--json")
    assert [version["number"] for version in found["versions"]] == [-1, -2, -3]
    assert "did you mean clean" in run("versions", "claen", code=2)


def test_diff(run):
    assert "['n']: 1 -> 2" in run("diff", "clean")
    assert "['n']: 0 -> 1" in run("diff", "clean", "-3", "-2")
    found = run("diff", "clean", "0", "--json")
    assert (found["kind"], found["details"]["changes"]) == ("object", [["['n']", "0", "2"]])
    assert "no version" in run("diff", "clean", "nix", code=2)


def test_rules_and_collection(run):
    assert "everything is kept" in run("keep")
    assert run("keep", "--versions", "1", "--json")["rules"] == {"": {"versions": 1, "age": None, "bytes": None}}
    assert run("gc", "-n", "--json")["materializations"] == 2
    assert run("gc", "--json")["materializations"] == 2
    assert len(run("versions", "clean").splitlines()) == 1
    assert "everything is kept" in run("keep", "--forever")
    run("keep", "clean", "--versions", "3")
    assert "'clean': forever removes the rule" in run("keep", "clean", "--versions", "2", "--forever", code=2)
    assert list(run("keep", "--json")["rules"]) == ["clean"]
    assert "everything is kept" in run("keep", "clean", "--forever")
    assert "invalid age" in run("keep", "--age", "long", code=2)
    assert run("gc", "--compact", "--json")["dry_run"] is False


def test_forget_needs_yes(run):
    assert "would forget" in run("forget", "clean", code=2)
    assert "clean" in [asset["key"] for asset in run("status", "--json")["assets"]]
    assert "cannot be undone" in run("forget", "clean", "--yes")
    assert "clean" not in [asset["key"] for asset in run("status", "--json")["assets"]]
    assert run("forget", "clean", "--yes", "--json", code=2)["error"]["name"] == "UnknownKeyError"


def test_sizes(run):
    assert run("status", "--sizes").split()[0] == "clean"
    assert run("status", "--sizes", "--json")["keys"][0]["versions"] == 3


def test_without_a_store(tmp_path, capsys):
    for command in (["versions", "x"], ["diff", "x"], ["keep"], ["gc"], ["forget", "x"]):
        assert main([*command, "--store", str(tmp_path / "none")]) == 5
        assert "there is no store" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
