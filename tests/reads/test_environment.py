# ruff: noqa: PLW0108 - every way to ask is tried
"""Names of the environment that a step reads count, by keyed digests; what machinery and libraries read for themselves does not."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from hashlib import sha256

import pandas as pd
import polars as pl
import pytest
from IPython.core.formatters import DisplayFormatter

from stepwell.kernel_runtime.reads import ReadRecorder, read_holds, what_changed


def keyed(data):
    return sha256(b"the user's key" + data).hexdigest()


def recorded(action):
    with ReadRecorder((), keyed) as recorder:
        action()
    return {read.name: read for read in recorder.reads if read.kind != "state"}


def holds(read):
    return read_holds(read, keyed)


@pytest.fixture(autouse=True)
def mode(monkeypatch):
    monkeypatch.setenv("MODE", "a-certain-value")
    monkeypatch.delenv("NOWHERE", raising=False)


@pytest.mark.parametrize(
    "read",
    [
        lambda: os.environ["MODE"],
        lambda: os.environ.get("MODE"),
        lambda: os.getenv("MODE"),
        lambda: "MODE" in os.environ,
        lambda: os.environb[b"MODE"],
        lambda: os.path.expandvars("$MODE/data.csv"),
        lambda: os.environ.setdefault("MODE", "b"),
        lambda: os.environ.pop("MODE"),
    ],
)
def test_a_name_that_is_read_counts_whatever_the_way(read, monkeypatch):
    found = recorded(read)
    assert list(found) == ["MODE"]
    monkeypatch.setenv("MODE", "a-certain-value")
    assert holds(found["MODE"])
    monkeypatch.setenv("MODE", "b")
    assert not holds(found["MODE"])
    assert what_changed(found["MODE"]) == "the environment variable MODE changed"
    monkeypatch.delenv("MODE")
    assert not holds(found["MODE"])
    assert what_changed(found["MODE"]) == "the environment variable MODE is no longer set"


@pytest.mark.parametrize(("module", "counts"), [("mine", True), ("tempfile", False)])
def test_who_asks_through_pathlib_decides(module, counts, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    space = {"__name__": module}
    exec("from pathlib import Path\ndef home(): return Path.home(), Path('~/data').expanduser()", space)
    assert ("HOME" in recorded(space["home"])) is counts


def test_a_name_that_is_not_set_counts_too(monkeypatch):
    read = recorded(lambda: os.getenv("NOWHERE", "default"))["NOWHERE"]
    assert holds(read)
    monkeypatch.setenv("NOWHERE", "")
    assert not holds(read)
    assert what_changed(read) == "the environment variable NOWHERE is set now"


def test_another_name_does_not_count(monkeypatch):
    read = recorded(lambda: os.environ["MODE"])["MODE"]
    monkeypatch.setenv("OTHER", "1")
    assert holds(read)


def test_a_value_is_told_by_a_keyed_digest_only():
    read = recorded(lambda: os.environ["MODE"])["MODE"]
    assert "a-certain-value" not in repr(read)
    assert not read_holds(read, lambda data: sha256(b"another key" + data).hexdigest())
    assert not read_holds(read)


@pytest.mark.parametrize(
    "read",
    [
        lambda: dict(os.environ),
        lambda: os.environ.copy(),
        lambda: {**os.environ, "X": "1"},
        lambda: os.environ | {"X": "1"},
        lambda: list(os.environ),
        lambda: list(os.environ.items()),
        lambda: [value for name, value in os.environ.items() if name.startswith("MODE")],
        lambda: repr(os.environ),
    ],
)
def test_a_read_of_everything_counts_as_one_without_names_of_the_session(read, monkeypatch):
    found = recorded(read)
    assert list(found) == ["*"]
    for name in ("JPY_PARENT_PID", "STEPWELL_BATCH", "PWD", "SHLVL", "COLUMNS", "_"):
        monkeypatch.setenv(name, "else")
    assert holds(found["*"])
    monkeypatch.setenv("MODE", "b")
    assert not holds(found["*"])
    monkeypatch.setenv("MODE", "a-certain-value")
    monkeypatch.setenv("NOWHERE", "1")
    assert not holds(found["*"])
    assert what_changed(found["*"]) == "the environment, which the step reads as a whole, changed"


def test_what_the_step_sets_is_no_input(monkeypatch):
    def work():
        os.environ["NOWHERE"] = "mine"
        assert os.environ["NOWHERE"] == "mine"
        del os.environ["NOWHERE"]
        assert "NOWHERE" not in os.environ
        os.environ["NOWHERE"] = "mine"
        return dict(os.environ)

    found = recorded(work)
    assert list(found) == ["*"]
    monkeypatch.setenv("NOWHERE", "theirs")
    assert holds(found["*"])


def test_what_python_reads_for_itself_does_not_count():
    def work():
        shutil.get_terminal_size()
        tempfile.gettempdir()
        subprocess.run([sys.executable, "-c", ""], check=True)
        multiprocessing.get_context("spawn")
        str(pd.DataFrame({"a": range(100)}))

    tempfile.tempdir = None
    assert recorded(work) == {}


def test_how_a_display_is_formatted_is_no_input():
    formatted = DisplayFormatter().format
    assert recorded(lambda: formatted(pl.DataFrame({"a": [1]}))) == {}


def test_reads_while_an_installed_package_is_imported_do_not_count_those_of_a_local_module_do(tmp_path, monkeypatch):
    site = tmp_path / "lib" / "site-packages"
    site.mkdir(parents=True)
    text = "import os\nVALUE = os.environ.get('MODE')\ndef later():\n    return os.getenv('MODE')\n"
    (site / "installed_reader.py").write_text(text)
    (tmp_path / "local_reader.py").write_text(text)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(tmp_path))

    def imported():
        import installed_reader

        return installed_reader

    found = recorded(imported)
    assert "MODE" not in found
    assert "MODE" in recorded(lambda: imported().later())

    def local():
        import local_reader

        return local_reader.VALUE

    assert "MODE" in recorded(local)


def test_nothing_is_recorded_outside_a_step_and_that_is_quick():
    recorded(lambda: None)
    with ReadRecorder((), keyed) as recorder:
        pass
    assert os.environ["MODE"]
    assert recorder.reads == ()
    environ = os.environ

    def seconds():
        start = time.thread_time()
        for _ in range(2_000):
            environ["MODE"]
        return (time.thread_time() - start) / 2_000

    assert min(seconds() for _ in range(5)) < 10e-6
