"""A path that a step returns brings back the contents of its file, and the user's own file is never written."""

import pathlib
import shutil

import pytest

import stepwell
from stepwell.commands.wording import notice_text
from stepwell.kernel_runtime.errors import UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.store.store import open_store
from stepwell.kernel_runtime.store.values import path_results
from stepwell.kernel_runtime.versions.data import data_version

LARGE = b"0123456789" * 20_000


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    store = open_store(tmp_path / "store", notify=lambda found: said.append(notice_text(found)))
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def put(store, path):
    return store.put(path, key="out", memo_key="m")


@pytest.mark.parametrize("contents", [b"", b"a,b\n", LARGE], ids=["empty", "inline", "object file"])
@pytest.mark.parametrize("relative", [True, False])
def test_while_the_file_is_unchanged_the_path_is_the_same(store, folder, said, contents, relative):
    path = pathlib.Path("data.csv") if relative else folder / "data.csv"
    path.write_bytes(contents)
    stored = put(store, path)
    assert store.get(stored, key="out") == path
    assert type(store.get(stored, key="out")) is type(path)
    assert said == []


@pytest.mark.parametrize("contents", [b"", b"a,b\n", LARGE], ids=["empty", "inline", "object file"])
@pytest.mark.parametrize("happens", ["deleted", "changed", "changed, of the same size"])
def test_otherwise_its_contents_are_restored_below_the_store(store, folder, said, contents, happens):
    path = folder / "data.csv"
    path.write_bytes(contents)
    stored = put(store, path)
    now = {"deleted": None, "changed": b"something else", "changed, of the same size": bytes(len(contents))}[happens]
    path.unlink() if now is None else path.write_bytes(now)
    if now == contents:
        return
    back = store.get(stored, key="out")
    assert back.read_bytes() == contents
    assert back.name == "data.csv"
    assert store.directory in back.parents
    assert store.get(stored, key="out") == back
    assert said[0] == f"out: {path} has changed or no longer exists; the stored contents are in {back}"
    assert (path.read_bytes() if path.exists() else None) == now


def test_a_relative_path_means_the_file_that_the_step_meant(store, folder, monkeypatch):
    pathlib.Path("data.csv").write_text("x")
    stored = put(store, pathlib.Path("data.csv"))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert store.get(stored, key="out") == folder / "data.csv"
    pathlib.Path("data.csv").write_text("another")
    assert store.get(stored, key="out") == folder / "data.csv"


def test_what_was_restored_and_then_changed_is_restored_again(store, folder):
    path = folder / "data.csv"
    path.write_text("x")
    stored = put(store, path)
    path.unlink()
    store.get(stored, key="out").write_text("y")
    assert store.get(stored, key="out").read_text() == "x"


def test_two_files_of_one_name_do_not_share_a_restored_one(store, folder):
    path = folder / "data.csv"
    stored = []
    for text in ("one", "two"):
        path.write_text(text)
        stored.append(put(store, path))
    path.unlink()
    first, second = (store.get(each, key="out") for each in stored)
    assert (first.read_text(), second.read_text()) == ("one", "two")


def test_a_restored_file_does_not_follow_a_link_out_of_the_store(store, folder):
    path = folder / "data.csv"
    path.write_text("x")
    stored = put(store, path)
    path.unlink()
    outside = folder / "outside"
    outside.mkdir()
    place = store.get(stored, key="out").parent
    shutil.rmtree(place)
    place.symlink_to(outside)
    with pytest.raises(ValueUnavailableError, match="contains a link"):
        store.get(stored, key="out")
    assert list(outside.iterdir()) == []
    place.unlink()
    back = store.get(stored, key="out")
    back.unlink()
    (folder / "mine").write_text("mine")
    back.symlink_to(folder / "mine")
    with pytest.raises(ValueUnavailableError, match="contains a link"):
        store.get(stored, key="out")
    assert (folder / "mine").read_text() == "mine"


def test_a_file_that_is_too_large_is_kept_by_its_path_only_and_is_missing_when_it_changes(store, folder, said, monkeypatch):
    monkeypatch.setattr(path_results, "MOST_KEPT", 100)
    path = folder / "large.bin"
    path.write_bytes(b"x" * 101)
    stored = put(store, path)
    assert stored.size < 1000
    assert "the path is stored, not the contents" in said[0]
    assert store.get(stored, key="out") == path
    path.write_bytes(b"y" * 101)
    with pytest.raises(ValueUnavailableError, match="its contents were not stored"):
        store.get(stored, key="out")


def test_a_folder_is_kept_by_its_path_and_the_digest_of_all_that_is_in_it(store, folder, said):
    path = folder / "parts"
    (path / "year=2026").mkdir(parents=True)
    (path / "year=2026" / "0.bin").write_bytes(b"x")
    stored, version = put(store, path), data_version(path)
    assert "is a folder" in said[0]
    assert store.get(stored, key="out") == path
    (path / "year=2026" / "1.bin").write_bytes(b"y")
    assert data_version(path) != version
    with pytest.raises(ValueUnavailableError, match="path of a folder that has changed or does not exist"):
        store.get(stored, key="out")
    (path / "year=2026" / "1.bin").unlink()
    assert store.get(stored, key="out") == path
    assert data_version(path) == version


def test_a_path_to_nothing_is_a_path(store, folder):
    path = folder / "not there" / "x"
    stored = put(store, path)
    assert store.get(stored, key="out") == path
    assert data_version(path) != data_version(folder / "not there" / "y")


def test_a_path_that_cannot_be_read_is_refused(store, folder):
    # A link to itself cannot be read by anybody.
    (folder / "loop").symlink_to("loop")
    with pytest.raises(UnstorableValueError, match="cannot be read"):
        put(store, folder / "loop")


def test_the_version_is_that_of_name_and_contents(folder):
    (folder / "a").mkdir()
    for name in ("x.csv", "a/x.csv", "y.csv"):
        (folder / name).write_text("same")
    version = data_version(folder / "x.csv")
    assert data_version(pathlib.Path("x.csv")) == data_version(folder / "a" / "x.csv") == version
    assert data_version(folder / "y.csv") != version
    (folder / "x.csv").write_text("other")
    assert data_version(folder / "x.csv") != version


def test_a_path_inside_another_value_is_its_text(store, folder, said):
    (folder / "x").write_text("x")
    stored = put(store, [folder / "x"])
    (folder / "x").unlink()
    assert store.get(stored, key="out") == [folder / "x"]
    assert said == []


def test_steps_downstream_get_the_contents_and_run_only_if_these_change(store_dir, folder):
    runs = []
    settings = {"text": "first", "noise": 1}

    @stepwell.asset(ignore=["runs", "settings"], volatile=True)
    def report():
        path = pathlib.Path("report.txt")
        path.write_text(settings["text"])
        return path

    @stepwell.asset(ignore=["runs"])
    def words(report):
        runs.append(report)
        return report.read_text()

    def run():
        return stepwell.materialize([report, words], store=store_dir).value("words")

    assert run() == "first"
    assert run() == "first"
    assert len(runs) == 1
    settings["text"] = "second"
    assert run() == "second"
    assert len(runs) == 2
    pathlib.Path("report.txt").unlink()
    with pytest.warns(stepwell.errors.StepwellWarning, match="the stored contents are in"):
        assert stepwell.load("report", store=store_dir).read_text() == "second"
