"""Options of libraries and of the process: what counts, and that what a step has changed can be undone and done again."""

# ruff: noqa: PTH100, PTH109, PTH123, PTH208, PLW0108
# The functions of `os` are wrapped when the first recorder is made: the tests look them up when they are called.

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import options_set
import pandas as pd
import pytest

from stepwell.kernel_runtime.reads import ReadRecorder
from stepwell.kernel_runtime.reads.checks import read_holds, what_changed
from stepwell.kernel_runtime.records.materializations import Read
from stepwell.kernel_runtime.versions import library_state
from stepwell.kernel_runtime.versions.options import list_change, plain_json, restored, with_change
from stepwell.kernel_runtime.versions.walk import CodeWalk


def run(folder, *arguments, given=""):
    done = subprocess.run(
        [sys.executable, "-P", options_set.__file__, *arguments], cwd=folder, input=given, capture_output=True, text=True, check=True
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    return run(tmp_path_factory.mktemp("changes"), "change")


@pytest.fixture(scope="module")
def deferred(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("deferred")
    (folder / "inner").mkdir()
    entries = {row: each["entries"] for row, each in changes.items()}
    return run(folder, "defer", given=json.dumps(entries))


@pytest.mark.parametrize("row", options_set.ALL)
def test_what_a_step_changes_is_undone_and_done_again(row, changes):
    found = changes[row]
    assert found["quiet"] == [], "nothing changed yet"
    assert found["entries"], "the change is seen"
    assert found["changed"] != found["default"]
    assert found["undone"] == found["default"]
    assert found["redone"] == found["changed"]
    assert found["failed"] == found["left"] == []


@pytest.mark.parametrize("row", options_set.ALL)
def test_options_of_a_library_that_is_not_imported_are_set_when_it_is(row, changes, deferred):
    assert deferred["shown"][row] == changes[row]["changed"]
    # Libraries add filters of warnings of their own.
    assert deferred["told"][row] or row == "warnings", "they count before the import as after it"


def test_most_libraries_of_the_table_were_not_imported_when_their_options_were_applied(deferred):
    assert {"numpy", "pandas", "polars", "matplotlib", "sklearn"} <= set(deferred["waiting"])
    assert deferred["failed"] == []
    assert [name for name in deferred["differing"] if not name.startswith("warnings:")] == []


@pytest.fixture
def unchanged():
    """Undo what a test changes."""
    before = library_state.snapshot()
    yield
    library_state.apply(library_state.changed(library_state.snapshot(), before))


def digest_of(text, name="f"):
    space = {"__name__": "__main__"}
    exec(compile(text, "/tmp/ipykernel_1/1.py", "exec"), space)
    return CodeWalk(namespace=space).of(space[name], path=name).digest


NUMPY = [
    "import numpy as np\ndef f(): return np.arange(3) / 0",
    "from numpy import divide\ndef f(): return divide(1, 0)",
    "import numpy as np\ntable = np.arange(3)\ndef f(): return table / 0",
    "import numpy as np\ndef make(table):\n    return lambda: table / 0\nf = make(np.arange(3))",
    "def f():\n    import numpy\n    return numpy.arange(3) / 0",
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("text", NUMPY)
def test_error_handling_counts_for_code_that_reaches_the_library(text):
    before = digest_of(text)
    np.seterr(divide="raise")
    assert digest_of(text) != before
    np.seterr(divide="warn")
    assert digest_of(text) == before


@pytest.mark.usefixtures("unchanged")
def test_options_count_for_no_other_code_and_printing_options_for_code_that_prints():
    other, computes = "def f(x): return x + 1", "import pandas as pd\ndef f(): return pd.Series([1]).sum()"
    prints = "import pandas as pd\ndef f(): return repr(pd.Series([1]))"
    before = [digest_of(text) for text in (other, computes, prints)]
    pd.set_option("display.precision", 3)
    np.seterr(all="raise")
    after = [digest_of(text) for text in (other, computes, prints)]
    assert before[:2] == after[:2]
    assert before[2] != after[2]


@pytest.mark.usefixtures("unchanged")
def test_a_function_among_the_options_counts_by_what_it_does():
    prints = "import pandas as pd\ndef f(): return repr(pd.Series([1]))"
    found = []
    for text in ("lambda x: '%.2f' % x", "lambda x: '%.2f' % x", "lambda x: '%.3f' % x"):
        pd.set_option("display.float_format", eval(text, {"__name__": "__main__"}))
        found.append(digest_of(prints))
    assert found[0] == found[1] != found[2]


@pytest.mark.usefixtures("unchanged")
def test_a_function_of_the_user_cannot_be_written_down_and_says_so():
    before = library_state.snapshot()
    pd.set_option("display.float_format", lambda x: f"{x:.2f}")
    entries = library_state.changed(before, library_state.snapshot())
    assert entries == [("pandas:display.float_format", None)]
    assert library_state.apply(entries) == ["pandas:display.float_format"]


REACH_LIMITS = [
    "def f(x): return str(x)",
    "def f(x): return f'{x}'",
    "def f(x): return '%d' % x",
    "def f(x): return x.total()",
    "def g(x): return g(x - 1)\ndef f(x): return g(x)",
    "def f(x): return [f'{each}' for each in x]",
    "def f(x):\n    import json\n    return json",
]
REACH_NO_LIMIT = [
    "def f(x): return x + 1",
    "def f(x): return sum(sorted(x)) * len(x)",
    "K = 3\ndef f(x): return [each * K for each in range(x)]",
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("text", [*REACH_LIMITS, *REACH_NO_LIMIT])
def test_limits_count_for_code_that_calls_or_makes_text(text):
    before = digest_of(text)
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    assert (digest_of(text) != before) == (text in REACH_LIMITS)
    sys.set_int_max_str_digits(limit)
    assert digest_of(text) == before


def state_reads(act):
    with ReadRecorder() as recorder:
        act()
    return [read for read in recorder.reads if read.kind == "state"]


@pytest.fixture
def filters():
    import warnings

    before = list(warnings.filters)
    yield warnings
    warnings.filters[:] = before
    warnings._filters_mutated()


def test_who_issues_a_warning_reads_the_filters_that_make_errors(filters):
    filters.simplefilter("ignore")
    warns, quiet = [state_reads(act) for act in (lambda: filters.warn("old", FutureWarning), lambda: 1)]
    assert [read.name for read in warns] == [library_state.WARNINGS]
    assert quiet == []
    filters.filterwarnings("once", "no such text")
    assert read_holds(warns[0]), "what is shown does not count"
    filters.simplefilter("error", FutureWarning)
    assert not read_holds(warns[0])
    assert what_changed(warns[0]) == "options of warnings changed"

    def raises():
        with pytest.raises(FutureWarning):
            filters.warn("old", FutureWarning)

    again = state_reads(raises)
    assert all(map(read_holds, again))
    filters.filterwarnings("ignore", "old")
    assert not read_holds(again[0]), "a filter before one that makes errors decides"


def test_a_warning_counts_that_was_shown_before_the_step(filters):
    filters.simplefilter("default")
    space = {"warnings": filters}
    warn = compile("warnings.warn('old', FutureWarning)", "<cell>", "exec")
    exec(warn, space)
    assert [read.name for read in state_reads(lambda: exec(warn, space))] == [library_state.WARNINGS]


def test_filters_that_the_step_itself_sets_are_no_read_and_are_left(filters):
    filters.simplefilter("ignore")

    def own():
        filters.simplefilter("error", FutureWarning)
        with pytest.raises(FutureWarning):
            filters.warn("old", FutureWarning)

    before = library_state.snapshot()
    assert state_reads(own) == []
    entries = library_state.changed(before, library_state.snapshot())
    left = list(filters.filters)
    filters.resetwarnings()
    filters.simplefilter("ignore")
    assert library_state.apply(entries) == []
    assert filters.filters[0] == left[0]
    assert library_state.apply(entries) == []
    assert filters.filters.count(left[0]) == 1


@pytest.mark.parametrize(
    ("before", "after", "other"),
    [
        ([1, 2], [9, 1, 2], [1, 2, 3]),
        ([1, 2], [1, 9, 2], [1, 2, 3]),
        ([1, 2], [1, 2, 9], [0, 1, 2]),
        ([1, 2, 3], [3, 1, 2], [1, 2, 3, 4]),
        ([1, 2, 3], [1, 3], [0, 1, 2, 3]),
        ([], [1, 2], [2]),
    ],
)
def test_what_was_added_to_a_list_is_added_to_another_one(before, after, other):
    change = list_change(before, after)
    assert with_change(before, change) == after
    found = with_change(other, change)
    assert set(found) == (set(other) - (set(before) - set(after))) | (set(after) - set(before)) | set(after) & set(other)
    assert with_change(found, change) == found or sorted(found) == sorted(with_change(found, change))


@pytest.mark.usefixtures("unchanged")
def test_a_chosen_time_zone_counts_for_code_that_uses_time():
    uses, other = "import time\ndef f(): return time.localtime(0)", "def f(x): return x + 1"
    before = [digest_of(uses), digest_of(other)]
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    assert digest_of(uses) != before[0]
    assert digest_of(other) == before[1]


@pytest.mark.usefixtures("unchanged")
def test_options_that_inputs_reach_are_recorded_reads():
    values = [{"a": [pd.Series([1.0])]}, 3]
    names = library_state.reached_by(values)
    assert set(names) >= {"pandas"}
    assert library_state.reached_by([1, "a", [2.0], {"b": None}]) == ()
    shows = compile("print(x)", "<cell>", "exec")
    assert "pandas text" in library_state.reached_by(values, [shows])
    with ReadRecorder() as recorder:
        for name in library_state.reached_by(values, [shows]):
            recorder.state_read(name)
    assert all(map(read_holds, recorder.reads))
    pd.set_option("display.precision", 3)
    failing = [read for read in recorder.reads if not read_holds(read)]
    assert [read.name for read in failing] == ["pandas text"]
    assert what_changed(failing[0]) == "options of pandas changed"


def folder_reads(look):
    with ReadRecorder() as recorder:
        look()
    return [read for read in recorder.reads if read.kind == "state"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "in.txt").write_text("1")
    pd.DataFrame({"a": [1]}).to_parquet("in.parquet")
    return tmp_path


LOOKS = {
    "getcwd": lambda: os.getcwd(),
    "Path.cwd": lambda: Path.cwd(),
    "abspath": lambda: os.path.abspath("."),
    "open": lambda: open("in.txt").close(),
    "resolve": lambda: Path("in.txt").resolve(),
    "exists": lambda: Path("nothing").exists(),
    "listdir": lambda: os.listdir(),
    "scandir": lambda: list(os.scandir("sub")),
    "write": lambda: Path("out.txt").write_text("1"),
    "chdir": lambda: os.chdir("sub"),
    "parquet": lambda: pd.read_parquet("in.parquet"),
}


@pytest.mark.parametrize("look", LOOKS)
def test_who_resolves_a_relative_path_reads_the_working_directory(look, folder):
    reads = folder_reads(LOOKS[look])
    os.chdir(folder)
    assert [read.name for read in reads] == [library_state.FOLDER]
    assert read_holds(reads[0])
    os.chdir("sub")
    assert not read_holds(reads[0])
    assert what_changed(reads[0]) == "the working directory changed"


def test_who_does_not_does_not_read_it(folder):
    assert folder_reads(lambda: (folder / "in.txt").read_text()) == []
    assert folder_reads(lambda: os.chdir(folder / "sub")) == []

    def own():
        os.chdir(folder / "sub")
        return os.getcwd()

    assert folder_reads(own) == [], "what the step sets itself is no input of it"


def test_an_unknown_state_does_not_hold_by_chance():
    assert not read_holds(Read("state", "no such library", "some digest"))


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 1.5, "a", [1, [2]], (1, "b"), {1, 2}, {"a": (1,), "b": {}}, "{:.2f}".format, print, os.path.join, DeprecationWarning],
)  # fmt: skip
def test_values_come_back_from_their_text(value):
    found = restored(plain_json(value))
    assert found == value or found(1) == value(1)
    assert type(found) is type(value)
