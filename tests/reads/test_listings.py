# ruff: noqa: PTH208, PTH207, PLW0108 - every way to ask is tried
"""Folders that a step lists, patterns that it declares, and hosts that it connects to."""

import glob
import importlib
import os
import shutil
import socket
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from stepwell.kernel_runtime.reads import ReadRecorder, read_holds, what_changed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a.csv", "note.txt"):
        Path(name).write_text(name)
    return tmp_path


def recorded(action, *, exclude=(), declared=()):
    with ReadRecorder(exclude, None, declared) as recorder:
        action()
    return tuple(read for read in recorder.reads if read.kind != "state")


@pytest.mark.parametrize(
    "look",
    [
        lambda: os.listdir("."),
        lambda: os.listdir(),
        lambda: list(os.scandir(b".")),
        lambda: glob.glob("*.csv"),
        lambda: list(Path().iterdir()),
        lambda: list(Path().glob("*.csv")),
        lambda: list(os.walk(".")),
    ],
)
def test_a_folder_that_is_listed_counts_by_its_names(folder, look):
    (found,) = recorded(look)
    assert (found.kind, found.name) == ("listing", str(folder))
    Path("a.csv").write_text("changed")
    assert read_holds(found)
    Path("c.csv").write_text("new")
    Path("b.csv").unlink()
    assert not read_holds(found)
    assert what_changed(found) == f"the names in {folder} changed: new c.csv; gone b.csv"


def test_a_folder_that_is_gone_or_not_there_yet(folder):
    (folder / "data").mkdir()
    (found,) = recorded(lambda: os.listdir("data"))
    shutil.rmtree("data")
    assert not read_holds(found)
    assert what_changed(found) == f"the folder {folder / 'data'} is gone"

    def missing():
        with pytest.raises(FileNotFoundError):
            os.listdir("data")

    (absent,) = recorded(missing)
    assert (absent.kind, read_holds(absent)) == ("absent", True)
    (folder / "data").mkdir()
    assert not read_holds(absent)


def test_what_the_step_makes_caches_and_the_store_are_no_names_of_a_listing(folder):
    store = folder / ".stepwell"

    def work():
        Path("early").write_text("1")
        os.listdir(".")
        Path("late").write_text("1")
        Path("out").mkdir()
        Path("out/inside").write_text("1")
        os.listdir("out")
        with tempfile.TemporaryDirectory() as passing:
            os.listdir(passing)

    (found,) = recorded(work, exclude=(store,))
    assert found.name == str(folder)
    assert read_holds(found)
    for name in (".stepwell", "__pycache__", ".ipynb_checkpoints"):
        (folder / name).mkdir()
    for name in ("early", "late"):
        Path(name).unlink()
    assert read_holds(found)
    Path("other").write_text("1")
    assert not read_holds(found)


def test_what_the_step_makes_is_no_match_of_a_pattern(folder):
    def work():
        Path("early.csv").write_text("1")
        with ReadRecorder(declared_paths=("*.csv",)) as inner:
            Path("late.csv").write_text("1")
        return inner.reads

    (pattern,) = [read for read in work() if read.kind == "glob"]
    assert (pattern.kind, read_holds(pattern)) == ("glob", True)
    Path("late.csv").unlink()
    assert read_holds(pattern)
    Path("early.csv").unlink()
    assert not read_holds(pattern)


def test_what_imports_and_installations_list_does_not_count(folder, monkeypatch):
    (folder / "some_local_module.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(str(folder))

    def work():
        importlib.invalidate_caches()
        importlib.import_module("some_local_module")
        os.listdir(Path(os.__file__).parent)
        os.listdir(Path(pytest.__file__).parent)

    reads = recorded(work)
    assert {read.kind for read in reads} == {"file"}
    assert str(folder / "some_local_module.py") in [read.name for read in reads]


def test_declared_files_and_patterns_count_although_nobody_opens_them(folder):
    Path("deep/er").mkdir(parents=True)
    Path("deep/er/x.bin").write_text("x")
    found = recorded(lambda: None, declared=("*.csv", "note.txt", "deep", "nowhere.txt"))
    assert sorted((read.kind, os.path.relpath(read.name)) for read in found) == [
        ("absent", "nowhere.txt"), ("file", "a.csv"), ("file", "b.csv"), ("file", "deep/er/x.bin"), ("file", "note.txt"),
        ("glob", "*.csv"), ("glob", "deep/**"),
    ]  # fmt: skip
    assert all(map(read_holds, found))

    def broken():
        return {os.path.relpath(read.name) for read in found if not read_holds(read)}

    Path("c.csv").write_text("c")
    assert broken() == {"*.csv"}
    Path("c.csv").unlink()
    Path("c.txt").write_text("no match")
    assert broken() == set()
    Path("deep/new").write_text("n")
    Path("a.csv").unlink()
    assert broken() == {"*.csv", "a.csv", "deep/**"}
    assert {what_changed(read) for read in found if not read_holds(read)} == {
        f"the files that match {folder / '*.csv'} changed: gone a.csv",
        f"{folder / 'a.csv'} is gone",
        f"the files that match {folder / 'deep/**'} changed: new new",
    }


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


def test_hosts_that_a_step_connects_to_are_named():
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    port = server.server_address[1]
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        with ReadRecorder() as recorder:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()
            urllib.request.urlopen(f"http://localhost:{port}/").read()
        assert recorder.network == ("127.0.0.1", "localhost")
        assert recorder.reads == ()
        with ReadRecorder() as silent:
            left, right = socket.socketpair()
            left.close()
            right.close()
        assert silent.network == ()
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
