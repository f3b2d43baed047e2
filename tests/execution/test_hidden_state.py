"""A step that changes what other steps read is told, and no result is recorded under a wrong key."""

import textwrap
import types

import pytest

import stepwell
from stepwell import asset, job, op
from stepwell.commands.wording import notice_text


@pytest.fixture
def notebook():
    """A notebook's namespace, in which cells are executed."""
    module = types.ModuleType("__cells__")
    module.asset = asset

    def run(text):
        exec(compile(textwrap.dedent(text), "<cell>", "exec"), vars(module))
        return module

    return run


def statuses(result):
    return {step.key: step.status for step in result.steps}


CELLS = """
CACHE = {}

def remember(value):
    CACHE[value] = True
    return value

@asset
def a():
    return remember(1)

@asset
def b(a):
    return sorted(CACHE)
"""


def test_a_change_in_place_is_told_and_what_reads_it_is_keyed_anew(notebook, store_dir):
    cells = notebook(CELLS)
    result = stepwell.materialize([cells.a, cells.b], store=store_dir)
    assert result.value("b") == [1]
    assert tuple(map(notice_text, result.notices)) == ("a changed the global CACHE: steps that read it are checked again",)
    # In a fresh kernel CACHE is empty when b starts, because a is reused: what b gave with a full one is not reused.
    fresh = notebook(CELLS)
    result = stepwell.materialize([fresh.a, fresh.b], store=store_dir)
    assert (statuses(result), result.value("b")) == ({"a": "reused", "b": "executed"}, [])
    result = stepwell.materialize([fresh.a, fresh.b], store=store_dir)
    assert statuses(result) == {"a": "reused", "b": "reused"}
    # And with a full one again the first result is found, though b's key was not known when the run began.
    again = notebook(CELLS)
    result = stepwell.materialize([again.a], store=store_dir, force=True)
    result = stepwell.materialize([again.b], store=store_dir, upstream=False)
    assert (statuses(result), result.value("b")) == ({"b": "reused"}, [1])


def test_a_result_is_found_under_the_key_that_a_change_gave(notebook, store_dir):
    cells = notebook(CELLS)
    stepwell.materialize([cells.a, cells.b], store=store_dir)
    again = notebook(CELLS.replace("@asset\ndef a", "@asset(volatile=True)\ndef a"))
    result = stepwell.materialize([again.a, again.b], store=store_dir)
    assert (statuses(result), result.value("b")) == ({"a": "executed", "b": "reused"}, [1])


@pytest.mark.parametrize(
    ("state", "change", "read", "name"),
    [
        ("MODE = 'x'", "global MODE; MODE = 'y'", "MODE", "MODE"),
        ("COUNT = 0", "global COUNT; COUNT += 1", "COUNT", "COUNT"),
        ("ROWS = [1]", "ROWS.append(2)", "len(ROWS)", "ROWS"),
        ("SEEN = {1}", "SEEN.add(2)", "len(SEEN)", "SEEN"),
        ("import numpy\nGRID = numpy.zeros(3)", "GRID[0] = 1", "float(GRID.sum())", "GRID"),
        ("class State: pass\nstate = State(); state.n = 0", "state.n = 1", "state.n", "state"),
    ],
)
def test_every_way_to_change_a_global_is_seen(notebook, store_dir, *, state, change, read, name):
    cells = f"{state}\n@asset\ndef a():\n    {change}\n    return 1\n\n@asset\ndef b(a):\n    return {read}\n"
    first = notebook(cells)
    result = stepwell.materialize([first.a, first.b], store=store_dir)
    assert [note for note in map(notice_text, result.notices) if name in note]
    changed = result.value("b")
    fresh = notebook(cells)
    unchanged = stepwell.materialize([fresh.a, fresh.b], store=store_dir).value("b")
    assert changed != unchanged
    assert unchanged == eval(read, vars(fresh))


def test_a_default_that_a_helper_changes_is_seen(notebook, store_dir):
    cells = """
    def collect(value, seen=[]):
        seen.append(value)
        return list(seen)

    @asset
    def a():
        return collect(1)

    @asset
    def b(a):
        return collect(2)
    """
    first = notebook(cells)
    result = stepwell.materialize([first.a, first.b], store=store_dir)
    assert (result.value("b"), notice_text(result.notices[0]).split(":")[0]) == (
        [1, 2],
        "a changed the global collect(seen=)",
    )
    fresh = notebook(cells)
    assert stepwell.materialize([fresh.a, fresh.b], store=store_dir).value("b") == [2]


def test_a_step_that_changes_nothing_says_nothing(notebook, store_dir):
    cells = notebook("TABLE = {'a': 1}\n@asset\ndef a():\n    return TABLE['a']\n")
    assert stepwell.materialize([cells.a], store=store_dir).notices == ()


def test_what_a_step_of_a_job_changed_counts_for_the_memoised_ones_after_it(store_dir):
    state = [0]

    @op
    def change():
        state.append(len(state))
        return 1

    @op(cache=True)
    def read(value):
        return len(state)

    @job
    def both():
        read(change())

    assert both.execute(store=store_dir).value("read") == 2
    assert both.execute(store=store_dir).value("read") == 3


@pytest.mark.parametrize(("name", "option"), [("TABLE_OF_IT_ALL", ""), ("TABLE_BESIDES", "(ignore='other')")])
def test_a_global_that_takes_long_to_digest_is_told_once(notebook, store_dir, monkeypatch, name, option):
    from stepwell.kernel_runtime.versions import expand

    monkeypatch.setattr(expand, "SLOW", 0.0)
    text = f"{name}, other = {{'a': [1, 2]}}, 1\n@asset{option}\ndef a():\n    return len({name}) + other\n"
    cells = notebook(text)
    (note,) = map(notice_text, stepwell.materialize([cells.a], store=store_dir).notices)
    assert note.startswith(f"the global {name} takes ")
    assert note.endswith("make it an asset")
    assert stepwell.materialize([cells.a], store=store_dir).notices == ()
