"""One SELECT, by the parser's word, over the tables it is given and nothing else."""

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from stepwell.kernel_runtime.errors import CellSyntaxError, StepwellError
from stepwell.kernel_runtime.store.sql.select import Scope, run_select
from stepwell.kernel_runtime.store.sql.statements import read_statement


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("SELECT 1", ()),
        ("SELECT * FROM flights JOIN airports USING (origin)", ("flights", "airports")),
        ("FROM flights SELECT count(*)", ("flights",)),
        ("SELECT (SELECT max(x) FROM b) FROM a WHERE x IN (FROM c)", ("b", "a", "c")),
        ("WITH t AS (SELECT * FROM a) SELECT * FROM t, T", ("a",)),
        ("WITH a AS (SELECT * FROM a) SELECT * FROM a", ("a",)),
        ("WITH a AS (FROM x), b AS (FROM a) FROM b", ("x",)),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) FROM r", ()),
        ("SELECT * FROM (WITH t AS (FROM a) FROM t), t", ("a", "t")),
        ("SELECT * FROM a UNION ALL BY NAME SELECT * FROM b", ("a", "b")),
        ('SELECT * FROM "Odd name", s.t', ("Odd name", "s.t")),
        ("SELECT 'FROM no' AS x -- FROM neither\n FROM a /* FROM nor */", ("a",)),
    ],
)
def test_the_tables_of_a_select(text, tables):
    read = [".".join(path) for path in read_statement(text).tables]
    assert sorted(read) == sorted(tables)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-- nothing",
        "SELEC 1",
        "SELECT 1; SELECT 2",
        "INSERT INTO a VALUES (1)",
        "DROP TABLE a",
        "SET threads = 1",
        "COPY a TO 'x'",
        "ATTACH 'x'",
    ],
)
def test_what_is_not_one_select_is_refused(text):
    for function in (read_statement, lambda text: run_select(text, Scope({}))):
        with pytest.raises(CellSyntaxError) as caught:
            function(text)
        assert len(str(caught.value).splitlines()) <= 3


def test_a_syntax_error_names_its_line():
    with pytest.raises(CellSyntaxError, match="line 2: FROM a WHER x"):
        read_statement("SELECT *\nFROM a WHER x = = 1")


def test_comments_and_spaces_do_not_count_and_literals_do():
    assert read_statement("select  a from t -- c\n").canonical == read_statement("SELECT a\nFROM /* d */ t").canonical
    texts = ["SELECT a FROM t", "SELECT b FROM t", "SELECT 1 FROM t", "SELECT 2 FROM t", "SELECT '1' FROM t", "SELECT '' FROM t", "SELECT NULL FROM t",
             "SELECT 1.0 FROM t", "SELECT a FROM t LIMIT 1", "SELECT DISTINCT a FROM t", "SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC"]  # fmt: skip
    assert len({read_statement(text).canonical for text in texts}) == len(texts)


def test_frames_of_every_kind_are_tables_and_parameters_are_bound():
    frame = pd.DataFrame({"x": [1, 2, 3], "s": ["a", None, "c"]})
    found = run_select(
        "SELECT x, s, $low AS low FROM p JOIN q USING (x) JOIN r USING (x) WHERE x >= $low ORDER BY x",
        Scope({"p": frame, "q": pl.DataFrame({"x": [2, 3]}), "r": pa.table({"x": [1, 2, 3]})}, {"low": 2}),
    )
    assert isinstance(found, pa.Table)
    assert found.to_pydict() == {"x": [2, 3], "s": [None, "c"], "low": [2, 2]}


def test_nothing_but_the_given_tables_can_be_read(tmp_path):
    frame = pd.DataFrame({"x": [1]})
    (tmp_path / "f.csv").write_text("x\n1\n")
    for text in (
        "SELECT * FROM frame",
        f"SELECT * FROM '{tmp_path}/f.csv'",
        f"SELECT * FROM read_csv('{tmp_path}/f.csv')",
        f"SELECT * FROM read_text('{tmp_path}/f.csv')",
    ):
        with pytest.raises(StepwellError, match=r"the SELECT failed|not allowed in a SELECT"):
            run_select(text, Scope({"given": frame}))
    run_select("SELECT * FROM frame", Scope({"frame": frame}))
    with pytest.raises(StepwellError):
        run_select("SELECT * FROM frame", Scope({}))


def test_an_error_of_the_select_is_one_screen_with_the_place():
    with pytest.raises(StepwellError, match='Referenced column "y" not found') as caught:
        run_select("SELECT y FROM f", Scope({"f": pd.DataFrame({"x": [1]})}))
    assert "LINE 1: SELECT y FROM f" in str(caught.value)
    with pytest.raises(StepwellError, match="missing"):
        run_select("SELECT $missing", Scope({}))
