"""%stepwell versions, diff, rename, forget, keep, gc: in a notebook."""

import os
import time

import pytest
from IPython.core.error import UsageError

import stepwell
from stepwell.commands.diff import Difference
from stepwell.kernel_runtime.errors import InvalidInvocationError, UnknownKeyError
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.housekeeping import Sizes, write_sizes


@pytest.fixture
def made(notebook):
    notebook("import pandas as pd\nn = 1")
    notebook("%%asset clean\nclean = pd.DataFrame({'id': [1, 2], 'x': [n, 5]})", "c1")
    notebook("n = 2")
    notebook("%%asset clean\nclean = pd.DataFrame({'id': [1, 2], 'x': [n, 5]})", "c1")
    return notebook


def test_versions_are_listed(made):
    lines = made("%stepwell versions clean").lines
    assert len(lines) == 2
    assert lines[0].split()[0] == "-1"
    assert "current" in lines[0]
    assert isinstance(made.run("%stepwell versions nix").error, UnknownKeyError)
    assert isinstance(made.run("%stepwell versions").error, UsageError)


def test_a_difference_is_shown(made):
    text = made("%stepwell diff clean").text
    assert "1 row changed" in text
    assert "x: 1 changed, 1: 1 -> 2" in text
    assert "matched by id: the column is unique in both; to match by other columns, use on=[...] or --on COLUMN)" in text
    assert "matched by position" in made("%stepwell diff clean -2 -1 --on ''").text
    assert "matched by x" in made("%stepwell diff clean 0 1 --on x").text
    assert "the same value" in made("%stepwell diff clean -1 -1").text
    assert isinstance(made.run("%stepwell diff clean --what").error, UsageError)


def test_a_difference_and_a_list_of_versions_have_pictures_while_the_extension_is_loaded(made):
    made("import stepwell\nfound = stepwell.diff('clean')\nlisted = stepwell.versions('clean')")
    format_ = made.shell.display_formatter.format
    assert isinstance(made.ns["found"], Difference)
    data, _ = format_(made.ns["found"])
    assert "<table>" in data["text/html"]
    assert "1 row changed" in data["text/plain"]
    assert "<table>" in format_(made.ns["listed"])[0]["text/html"]
    made.shell.run_line_magic("unload_ext", "stepwell")
    assert "text/html" not in format_(made.ns["found"])[0]
    made.shell.run_line_magic("load_ext", "stepwell")


@pytest.mark.parametrize("order", ["the command first", "the cell first"])
def test_a_renamed_cell_is_not_computed_again(made, order):
    body = "%%asset {} tidy\ntidy = pd.DataFrame({{'id': [1, 2], 'x': [n, 5]}})"
    if order == "the cell first":
        made(body.format("-r"), "c1")
    text = made("%stepwell rename clean tidy").text
    assert "clean -> tidy: 2 versions carried over" in text
    assert "tidy: reused" in made(body.format(""), "c1").text
    assert stepwell.why("tidy").state == "fresh"
    assert made.ns["tidy"].x.tolist() == [2, 5]
    # The code of before finds its result under the new name, too: its history came along.
    made("n = 1")
    assert made.session.store.keys() == ["tidy"]


def test_a_renamed_cell_with_another_edit_is_stale_and_says_why(made):
    made("%stepwell rename clean tidy")
    made("%%asset -r tidy\ntidy = pd.DataFrame({'id': [1, 3], 'x': [n, 5]})", "c1")
    found = stepwell.why("tidy")
    assert found.state == "stale"
    assert "[1, 3]" in str(found)
    assert stepwell.why("tidy", accept=True).state == "fresh"


def test_forgetting_asks_first(made):
    text = made("%stepwell forget clean").text
    assert "would forget clean: 2 versions" in text
    assert "cannot be undone" in text
    assert made.session.store.keys() == ["clean"]
    made("%stepwell forget clean --yes")
    assert made.session.store.keys() == []
    assert stepwell.why("clean").state == "missing"
    assert isinstance(made.run("%stepwell forget clean --yes").error, UnknownKeyError)


def test_rules_are_set_shown_applied_and_taken_back(made):
    assert made("%stepwell keep").lines == ["everything is kept: there are no rules"]
    assert made("%stepwell keep clean --versions 1").lines == ["clean: 1 version"]
    assert made("%stepwell keep --age 30d --bytes 10GB").lines == [
        "the whole store: 30d long, at most 10.0 GB",
        "clean: 1 version",
    ]
    assert "would free" in made("%stepwell gc -n").text
    assert len(made("%stepwell versions clean").lines) == 2
    assert "1 version" in made("%stepwell gc").text
    assert len(made("%stepwell versions clean").lines) == 1
    assert made("%stepwell keep clean --forever").lines == ["the whole store: 30d long, at most 10.0 GB"]
    assert isinstance(made.run("%stepwell keep --versions 0").error, InvalidInvocationError)


def test_sizes_are_shown(made):
    lines = made("%stepwell status --sizes").lines
    assert lines[0].startswith("clean  ")
    assert "2 versions" in lines[0]
    assert lines[-1].startswith("store: ")


def test_a_large_store_says_once_what_gc_would_free(made):
    directory = made.session.store.directory
    write_sizes(Folder(directory), Sizes(time.time(), 20 << 30, 0, 1_000_000, 5_000_000_000))
    text = made("n = 3\n%materialize clean").text
    assert "%stepwell gc would free 1.0 MB, and 5.0 GB more with %stepwell keep --versions 1" in text
    assert "gc" not in made("n = 4\n%materialize clean").text


def test_what_is_due_is_done_when_the_session_ends(made):
    store = made.session.store
    made("%stepwell keep --versions 1")
    os.utime(store.directory / "CACHEDIR.TAG", (0, 0))
    made("n = 5\n%materialize clean")
    assert len(store.history("clean")) > 1
    made.session.close()
    assert len(store.history("clean")) == 1


def test_the_commands_are_explained(made):
    text = made.shell.find_line_magic("stepwell").__doc__
    for command in ("versions KEY [", "diff KEY [A] [B]", "rename OLD NEW", "forget KEY [-y]", "keep [KEY]", "gc [-n]"):
        assert command in text
