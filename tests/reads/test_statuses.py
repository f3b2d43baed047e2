# ruff: noqa: PLW0108, PTH110, PTH112, PTH116, PTH202, PTH103, PTH107, PTH102 - every way to look at a path is tried
"""A step that asks whether a file is there, or for its size or times, depends on the answer."""

import glob
import inspect
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow.fs
import pyarrow.parquet
import pytest

from stepwell.kernel_runtime.reads import ReadRecorder, read_holds, what_changed
from stepwell.kernel_runtime.versions.environment import counts_here


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recorded(action):
    with ReadRecorder() as recorder:
        action()
    return tuple(read for read in recorder.reads if read.kind != "state")


def changes(path, change):
    if change == "made":
        path.write_text("1")
    elif change == "removed":
        path.unlink()
    elif change == "folder":
        path.unlink()
        path.mkdir()
    elif change == "grown":
        path.write_text("12")
    elif change == "touched":
        os.utime(path, ns=(1, 1_600_000_000_000_000_000))
    elif change == "rewritten":
        before = path.stat()
        path.write_text("2")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def link_to(path):
    path.unlink(missing_ok=True)
    path.symlink_to(Path(__file__))


LOOKS = {
    "os.path.exists": (os.path.exists, {"removed"}, {"grown", "touched", "folder"}),
    "os.path.isfile": (os.path.isfile, {"removed", "folder"}, {"grown", "touched"}),
    "os.path.isdir": (os.path.isdir, {"removed", "folder"}, {"grown", "touched"}),
    "os.path.lexists": (os.path.lexists, {"removed"}, {"grown", "touched"}),
    "os.path.islink": (os.path.islink, {"removed", "linked"}, {"grown", "touched"}),
    "os.path.getsize": (os.path.getsize, {"removed", "grown"}, {"touched", "rewritten"}),
    "os.path.getmtime": (os.path.getmtime, {"removed", "touched"}, set()),
    "os.stat": (lambda path: os.stat(path), {"removed", "grown", "touched"}, {"rewritten"}),
    "os.access": (lambda path: os.access(path, os.R_OK), {"removed"}, {"grown", "touched"}),
    "Path.exists": (lambda path: Path(path).exists(), {"removed"}, {"grown", "touched"}),
    "Path.is_file": (lambda path: Path(path).is_file(), {"removed", "folder"}, {"grown", "touched"}),
    "Path.is_dir": (lambda path: Path(path).is_dir(), {"removed", "folder"}, {"grown", "touched"}),
    "Path.is_symlink": (lambda path: Path(path).is_symlink(), {"removed", "linked"}, {"grown"}),
    "Path.stat": (lambda path: Path(path).stat().st_size, {"removed", "grown"}, {"rewritten"}),
    "glob": (glob.glob, {"removed"}, {"grown", "touched"}),
    "pyarrow": (lambda path: pyarrow.fs.LocalFileSystem().get_file_info(path), {"removed", "grown"}, {"rewritten"}),
}  # fmt: skip


@pytest.mark.parametrize("way", LOOKS)
def test_what_a_look_learns_counts_and_nothing_else(folder, way):
    look, matters, does_not = LOOKS[way]
    for change in sorted(matters | does_not):
        path = folder / f"{change}.txt"
        path.write_text("1")
        (found,) = recorded(lambda path=path: look(path.name))
        assert found.name == str(path)
        assert read_holds(found)
        link_to(path) if change == "linked" else changes(path, change)
        assert read_holds(found) is (change in does_not and change != "folder"), change
        if not read_holds(found):
            assert str(path) in what_changed(found)


@pytest.mark.parametrize("look", [os.path.exists, os.path.isfile, lambda path: Path(path).exists(), lambda path: os.access(path, os.F_OK), os.path.lexists])  # fmt: skip
def test_a_file_that_is_missed_is_looked_for_again(folder, look):
    (found,) = recorded(lambda: look("config.toml"))
    assert read_holds(found)
    Path("config.toml").write_text("")
    assert not read_holds(found)
    assert "config.toml" in what_changed(found)


def test_what_is_opened_too_is_one_read(folder):
    Path("data").mkdir()
    Path("data/a.csv").write_text("a\n1\n")

    def read():
        if Path("data").is_dir() and Path("data/a.csv").exists() and os.path.getsize("data/a.csv"):
            pd.read_csv("data/a.csv")

    (found,) = recorded(read)
    assert (found.kind, found.name) == ("file", str(folder / "data/a.csv"))
    os.utime("data/a.csv", ns=(1, 1))
    assert read_holds(found)


def test_what_the_step_makes_or_removes_is_no_input(folder):
    Path("old").mkdir()
    Path("old/file").write_text("1")
    Path("gone").write_text("1")

    def work():
        if not Path("cache").exists():
            Path("cache").write_text("1")
        os.makedirs("out/deep", exist_ok=True)
        assert os.path.isdir("out/deep")
        shutil.rmtree("old") if os.path.isdir("old") else None
        os.mkdir("old")
        with tempfile.TemporaryDirectory() as made:
            assert Path(made).is_dir()
        if not os.path.exists("fetched"):
            subprocess.run([sys.executable, "-c", "open('fetched', 'w').write('1')"], check=True)
        if os.path.exists("gone"):
            os.remove("gone")

    first = recorded(work)
    assert all(read_holds(read) for read in first), first
    assert {read.name for read in first} <= {str(folder / name) for name in ("gone", "old/file", "cache", "fetched")}


def test_a_file_that_the_step_makes_because_it_is_missing_may_be_missing_again_but_not_different(folder):
    def work():
        if not Path("cache").exists():
            Path("cache").write_text("1")

    (read,) = recorded(work)
    assert (read.name, read_holds(read)) == (str(folder / "cache"), True)
    Path("cache").unlink()
    assert read_holds(read)
    Path("cache").write_text("2")
    assert not read_holds(read)


def test_what_somebody_else_makes_while_the_step_runs_does_not_hold(folder):
    lines = "import pathlib\nwhile not pathlib.Path('go').exists(): pass\npathlib.Path('flag').write_text('1')\n"
    other = subprocess.Popen([sys.executable, "-c", lines])

    def work():
        assert not os.path.exists("flag")
        Path("go").write_text("1")
        other.wait()

    (found,) = recorded(work)
    assert found.name == str(folder / "flag")
    assert not read_holds(found)


@pytest.mark.parametrize(
    "work",
    [
        lambda: __import__("json.tool"),
        lambda: Path("link").resolve(),
        lambda: shutil.which("cat"),
        lambda: list(os.walk(".")) and None,
        lambda: os.path.exists(sys.executable),
        lambda: os.path.exists("/proc/1"),
        lambda: os.stat(0),
    ],
)
def test_what_python_looks_up_for_itself_does_not_count(folder, work):
    assert [read for read in recorded(work) if read.kind in {"status", "absent"}] == []


def test_a_file_that_is_touched_is_no_change_to_libraries_that_ask_for_its_size(folder):
    pd.DataFrame({"a": [1]}).to_parquet("a.parquet")
    found = recorded(lambda: pyarrow.parquet.read_table("a.parquet", filesystem=pyarrow.fs.LocalFileSystem()))
    os.utime("a.parquet", ns=(1, 1))
    assert [read.name for read in found if not read_holds(read)] == []
    assert str(folder / "a.parquet") in {read.name for read in found}


def test_the_functions_stay_those_of_os():
    with ReadRecorder():
        pass
    assert pickle.loads(pickle.dumps(os.stat)) is os.stat
    assert list(inspect.signature(os.stat).parameters) == ["path", "dir_fd", "follow_symlinks"]
    assert os.stat in os.supports_follow_symlinks
    assert os.stat in os.supports_dir_fd
    with pytest.raises(TypeError, match="path"), ReadRecorder():
        os.stat()
    with pytest.raises(FileNotFoundError), ReadRecorder():
        os.stat("nowhere at all")
    assert isinstance(pickle.loads(pickle.dumps(pyarrow.fs.LocalFileSystem())), pyarrow.fs.LocalFileSystem)
    assert counts_here(inspect.currentframe())


PROGRAMS = {
    "list": (lambda: subprocess.run(["cat", "/dev/null"], check=True), ("cat",)),
    "shell": (lambda: subprocess.run("cat /dev/null | wc", shell=True, check=True, stdout=subprocess.DEVNULL), ("cat",)),
    "system": (lambda: os.system("true secret"), ("true",)),
    "pipe": (lambda: os.popen("echo 1").read(), ("echo",)),
    "pool": (lambda: _in_a_pool(), ("other processes",)),
    "library": (lambda: __import__("platform").processor(), ()),
    "none": (lambda: None, ()),
}  # fmt: skip


def _in_a_pool():
    with ProcessPoolExecutor(1) as pool:
        pool.submit(len, "a").result()


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_and_processes_that_a_step_starts_are_named_without_their_arguments(name):
    work, expected = PROGRAMS[name]
    with ReadRecorder() as recorder:
        work()
    assert recorder.children == expected
