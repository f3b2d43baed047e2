"""Flags: those of ops, and what a misspelt one is told."""

import pytest
from IPython.core.error import UsageError

from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.errors import (
    CellError,
    CellNameError,
    InvalidDefinitionError,
    UnknownKeyError,
    UnstorableValueError,
    UpstreamBudgetError,
)


def statuses(notebook):
    return {step.key: step.status for step in notebook.session.last_run.steps}


def made(notebook, line, body="data = data + top\n"):
    notebook(f"%%op {line}\n{body}")
    return notebook.ns["transform"]


@pytest.mark.parametrize(
    "line",
    [
        "transform(data, *, top=10) -> data --max-age 1d --ignore a,b --reads 'x y.csv' --reads z.csv",
        "--max-age 1d --ignore a,b --reads 'x y.csv' --reads z.csv transform(data, *, top=10) -> data",
        "transform(data, *, top=10) --max-age=1d --ignore a,b -> data --reads 'x y.csv' --reads=z.csv",
    ],
)
def test_flags_stand_around_the_signature(notebook, line):
    op = made(notebook, line)
    assert (op.max_age, set(op.ignore), op.reads) == (86_400, {"a", "b"}, ("x y.csv", "z.csv"))
    assert list(op.ins) == ["data"]
    assert op.config == {"top": 10}
    assert repr(op) == "<op transform(data, *, top) -> data>"


@pytest.mark.parametrize("default", ["-1", "'--max-age'", "('a -> b', -2)", "[-1, {'k': '--volatile'}]"])
def test_what_stands_in_brackets_is_no_flag(notebook, default):
    op = made(notebook, f"transform(data, *, top={default}) -> data", "data = (data, top)")
    assert op.config == {"top": eval(default)}
    assert (op.max_age, op.volatile, op.cache) == (None, False, None)


def test_a_flag_is_written_in_full(notebook):
    assert "did you mean --plain?" in notebook.refused("%%asset a --plai\na = 1", UsageError)
    assert "did you mean --volatile?" in notebook.refused("%%op f() --volat\n1", UsageError)


def test_they_decide_when_a_step_runs(notebook):
    notebook("K = 1\nL = 1")
    notebook("%%op fetch() --volatile\n1")
    notebook("%%op clean(data) --ignore K\ndata + K")
    notebook("%%op sent(data) --no-cache\ndata + L")
    cell = "%%graph_asset report\nsent(clean(fetch()))"
    notebook(cell)
    notebook("K = 2")
    notebook(cell)
    assert statuses(notebook) == {"report.fetch": "executed", "report.clean": "reused", "report.sent": "executed"}


def test_the_op_of_a_job_is_reused_where_it_says_so(notebook):
    notebook("%%op fetch() --cache\nprint('fetched')\n1")
    notebook("%%op send(data)\nprint('sent')\ndata")
    notebook("%%job mail\nsend(fetch())")
    notebook("mail.execute()")
    assert statuses(notebook) == {"fetch": "executed", "send": "executed"}
    notebook("mail.execute()")
    assert statuses(notebook) == {"fetch": "reused", "send": "executed"}


def test_files_that_an_op_declares_are_looked_at(notebook, tmp_path):
    (tmp_path / "a.txt").write_text("1")
    notebook("%%op fetch() --reads a.txt\n!cat a.txt\n'done'")
    cell = "%%graph_asset report\nfetch()"
    notebook(cell)
    notebook(cell)
    assert statuses(notebook) == {"report.fetch": "reused"}
    (tmp_path / "a.txt").write_text("2")
    notebook(cell)
    assert statuses(notebook) == {"report.fetch": "executed"}


def test_what_makes_no_sense_is_refused(notebook):
    assert "invalid age 'soon'" in notebook.refused("%%op f(x) --max-age soon\nx", InvalidDefinitionError)
    assert "--cache and --no-cache" in notebook.refused("%%op f(x) --cache --no-cache\nx", CellError)
    assert "did you mean --max-age?" in notebook.refused("%%op f(x) --max-agge 1d\nx", UsageError)
    assert "expected one argument" in notebook.refused("%%op f(x) --ignore\nx", UsageError)
    assert "%%op?" in notebook.refused("%%op f(x) -z\nx", UsageError)
    assert "f" not in notebook.ns


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("%%asset --max-agee 1d raw", "--max-age"),
        ("%%asset --regster raw", "--register"),
        ("%%multi_asset --grup g a b", "--group"),
        ("%materialize --forse", "--force"),
        ("%why raw --acept", "--accept"),
    ],
)
def test_a_misspelt_flag_is_told_the_near_one_and_where_the_help_is(notebook, line, near):
    text = notebook.refused(f"{line}\n1" if line.startswith("%%") else line, UsageError)
    assert f"did you mean {near}?" in text
    magic = line.split(maxsplit=1)[0]
    # Of a verb the message has the usage.
    assert f"run {magic}? to read the help" in text or f"; {magic} [" in text
    assert near in notebook.shell.find_line_magic(magic.strip("%")).__doc__


def test_help_and_completion_know_the_flags_of_ops(notebook):
    def complete(line):
        return notebook.shell.complete(line, line, len(line))[1]

    assert complete("%%op f(x) --ma") == ["--max-age"]
    assert {"--no-cache", "--cache", "--volatile", "--ignore", "--reads"} <= set(complete("%%op f(x) -> x --"))
    assert "--max-age AGE" in notebook.shell.find_line_magic("op").__doc__
    assert isinstance(made(notebook, "transform(data) --volatile", "data"), OpDefinition)


def test_a_command_is_unverifiable_unless_a_flag_says_when_it_is_looked_at_again(notebook):
    notebook("%%asset raw\nraw = !echo hello")
    assert "!echo runs a program" in notebook("%why raw").text
    for flag in ("--reads a.txt", "--max-age 1d"):
        cell = f"%%asset {flag} raw\nraw = !echo hello"
        notebook(cell)
        notebook(cell)
        assert statuses(notebook) == {"raw": "reused"}
    notebook("word = 'a'")
    cell = "%%asset --max-age 1d raw\nraw = !echo $word"
    notebook(cell)
    notebook("word = 'b'")
    notebook(cell)
    assert statuses(notebook) == {"raw": "executed"}
    assert list(notebook.ns["raw"]) == ["b"]


def test_an_order_after_an_asset_that_does_not_exist_is_refused_with_the_near_names(notebook):
    notebook("%%asset raw/flights\n1")
    for cell in (
        "%%asset -d flihgts clean\n1",
        "%%asset -d flights clean\n1",
        "%%sql_asset -d raw/fligths clean\nSELECT 1",
    ):
        text = notebook.refused(cell, UnknownKeyError)
        assert "the flag -d" in text
        assert "did you mean raw/flights?" in text
    notebook("%%asset -d raw/flights clean\n1")


def restarted(notebook, *plain):
    """Forget what the kernel knows, as a new one would."""
    for name in ("big", "small", "n", "gen"):
        notebook.ns.pop(name, None)
    notebook.session.registry.assets.clear()
    notebook.session.attach(None)
    notebook.session.attach(notebook.shell.user_ns)
    for cell in plain:
        notebook(cell)


BIG = "%%asset{} n\nbig = bytes(200_000_000)\nsmall = 1\nn = 2"


def test_other_variables_are_kept_or_dropped(notebook):
    notebook(BIG.format(" --drop small"))
    restarted(notebook)
    assert "reused" in notebook(BIG.format(" --drop small")).text
    assert "n: runs again, because small is needed and was not stored" in notebook("%%asset m\nm = small + 1").text
    # What was left out because it is large is stored from now on; and then stays stored without the flag.
    restarted(notebook)
    assert "executed" in notebook(BIG.format(" --keep big,small")).text
    restarted(notebook)
    assert "reused" in notebook(BIG.format(" --keep big --keep small")).text
    assert len(notebook.ns["big"]) == 200_000_000
    restarted(notebook)
    assert "reused" in notebook(BIG.format("")).text
    assert "runs again" not in notebook("%%asset m\nm = len(big) + small").text


def test_a_dropped_variable_of_a_slow_multi_asset_is_not_computed_above_the_budget(notebook):
    cell = "%%multi_asset a b --drop big\nimport time\ntime.sleep(0.12)\na, b, big = 1, 2, [3]"
    notebook(cell)
    restarted(notebook)
    notebook("%config Stepwell.upstream_budget = 0.1")
    assert "reused" in notebook(cell).text
    assert isinstance(notebook.run("%%asset m\nm = len(big)").error, UpstreamBudgetError)
    notebook("%config Stepwell.upstream_budget = 60")
    notebook("%%asset m\nm = len(big)")
    assert notebook.ns["m"] == 1


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("keep nothing", "assigns no variable"),
        ("drop n", "n holds the value of an asset"),
        ("keep f", "assigns no variable"),
    ],
)
def test_only_other_variables_of_the_cell_can_be_kept_or_dropped(notebook, flag, said):
    cell = f"%%asset --{flag} n\ndef f(): pass\nsmall = 1\nn = 2"
    assert said in notebook.refused(cell, CellNameError)


def test_a_value_that_must_be_stored_and_cannot_be_is_a_failure(notebook, monkeypatch):
    cell = "%%asset{} gen\ngen = (x for x in [1])"
    assert "is not stored" in notebook(cell.format("")).text
    for flag, strict in ((" --stored", ""), ("", "1")):
        monkeypatch.setenv("STEPWELL_STRICT", strict)
        restarted(notebook)
        ran = notebook.run(cell.format(flag))
        assert isinstance(ran.error, UnstorableValueError)
        assert "the value of 'gen' cannot be stored: it is a generator" in ran.text
    monkeypatch.delenv("STEPWELL_STRICT")
    ran = notebook.run("%%asset n --keep big\nbig = (x for x in [1])\nn = 1")
    assert isinstance(ran.error, UnstorableValueError)
    assert "big, which --keep names, cannot be stored: it is a generator" in ran.text
    ran = notebook.run("%%asset n --keep big\nbig = {'x': [1, (x for x in [1])]}\nn = 1")
    assert "big, which --keep names, cannot be stored: it is a generator at big['x'][1]" in ran.text
