"""``stepwell sql``: rows on standard output in four forms, errors on standard error."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

import stepwell as library
from stepwell.batch.command_line import main


@library.asset
def clean():
    return pa.table({"origin": ["JFK", "SFO", None], "delay": [5, 40, None]})


@library.asset(key_prefix="raw")
def flights():
    return [{"n": 1}]


@pytest.fixture
def store(project, monkeypatch):
    monkeypatch.chdir(project)
    (project / "pyproject.toml").touch()
    library.materialize([clean, flights], store=project / ".stepwell")
    return project / ".stepwell"


@pytest.fixture
def sql(store, capsys):
    def ask(*arguments, code=0):
        capsys.readouterr()
        assert main(["sql", *arguments]) == code
        return capsys.readouterr()

    return ask


def test_a_table_is_for_people_and_shows_so_many_rows(sql):
    assert sql("FROM clean").out == "origin  delay\nJFK         5\nSFO        40\nNULL     NULL\n"
    assert sql("FROM clean", "--limit", "1").out.splitlines() == [
        "origin  delay",
        "JFK         5",
        "only the first 1 rows are shown: --limit N shows more, --csv prints all",
    ]
    assert sql("FROM clean WHERE false").out == "origin  delay\nno rows\n"
    assert sql("SELECT repeat('x', 100) || chr(10) AS s").out.splitlines()[1] == "x" * 59 + "…"


def test_csv_json_and_lines_are_for_machines(sql):
    assert sql("FROM clean", "--csv").out == "origin,delay\nJFK,5\nSFO,40\n,\n"
    assert json.loads(sql("FROM clean ORDER BY delay", "--json").out) == {
        "columns": [{"name": "origin", "type": "string"}, {"name": "delay", "type": "int64"}],
        "rows": [["JFK", 5], ["SFO", 40], [None, None]],
    }
    odd = "SELECT 'NaN'::DOUBLE AS f, 1.50::DECIMAL(5, 2) AS d, DATE '2026-01-02' AS day, [1, NULL] AS l, {'a': true} AS s, 'a''b' AS t"
    assert [json.loads(line) for line in sql(odd, "--format", "jsonl").out.splitlines()] == [
        {"f": "nan", "d": "1.50", "day": "2026-01-02", "l": [1, None], "s": {"a": True}, "t": "a'b"}
    ]
    assert json.loads(sql("FROM clean WHERE false", "--json").out)["rows"] == []


def test_parameters_keys_with_prefixes_and_the_catalog(sql):
    assert sql("SELECT origin FROM clean WHERE delay > $low", "-p", "low=30", "--csv").out == "origin\nSFO\n"
    assert sql("SELECT $a AS a, $b AS b", "-p", "a=text", "-p", "b=[1, 2]", "--csv").out == 'a,b\ntext,"[1, 2]"\n'
    assert sql("SELECT n FROM raw.flights", "--csv").out == "n\n1\n"
    assert sql("SELECT key FROM stepwell.steps ORDER BY key", "--csv").out == "key\nclean\nraw/flights\n"


def test_wrong_questions_are_one_screen(sql, store):
    for arguments, says in (
        (["FROM claen"], "did you mean clean?"),
        (["SELECT 1; SELECT 2"], "2 statements"),
        (["SELECT nope FROM clean"], "^^^^"),
        (["SELECT $low"], "$low"),
        (["FROM clean", "-p", "low"], "is not NAME=VALUE"),
        (["FROM clean", "--limit", "0"], "not a whole number of at least 1"),
        (["FROM read_csv('/etc/passwd')"], "not below the project"),
        (["FROM clean", "--notebook", "nobody.ipynb"], "nothing is stored for 'clean'"),
    ):
        told = sql(*arguments, code=2)
        assert says in told.err, told.err
        assert told.out == ""
        assert len(told.err.splitlines()) <= 5
    assert sql("FROM clean", "--store", "nowhere", code=5).out == ""
    told = sql("FROM claen", "--json", code=2)
    assert json.loads(told.out)["error"]["name"] == "QueryError"


def test_a_reader_that_goes_ends_an_endless_answer(start, store):
    endless = start("sql", "SELECT range AS n FROM range(1_000_000_000_000)", "--csv", "--store", store)
    assert endless.stdout.readline() == "n\n"
    endless.stdout.close()
    assert endless.wait(240) != 0


GUIDES = Path(__file__).resolve().parents[2] / "notebooks"
_DEFINES = re.compile(r"%%(?:sql_asset|asset|graph_asset|multi_asset|job) ((?:\w+ ?)+)")


def test_no_two_guides_share_a_key_so_that_sql_over_all_of_them_knows_which_is_meant():
    owners = {}
    for guide in sorted(GUIDES.glob("*.ipynb")):
        cells = json.loads(guide.read_text())["cells"]
        defined = [found[1].split() for cell in cells if (found := _DEFINES.match("".join(cell["source"])))]
        assert defined, guide
        for key in {name for names in defined for name in names}:
            owners.setdefault(key, []).append(guide.stem)
    assert len(owners) > 30
    assert {key: found for key, found in owners.items() if len(found) > 1} == {}
