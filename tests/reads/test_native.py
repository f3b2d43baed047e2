# ruff: noqa: PTH109, PTH100, PTH123 - every way to ask is tried
"""Readers that open files in C, C++ and Rust tell which; what cannot be told is said."""

import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.dataset as ds
import pyarrow.feather as pf
import pyarrow.fs
import pyarrow.json as pj
import pyarrow.orc as po
import pyarrow.parquet as pq
import pytest
from duckdb import sql as sql_by_name
from polars import read_parquet as read_parquet_by_name
from pyarrow import ipc
from pyarrow.csv import read_csv as read_csv_by_name

from stepwell.kernel_runtime.reads import ReadRecorder, read_holds
from stepwell.kernel_runtime.versions.queries import files_named

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FRAME.to_parquet("a.parquet")
    FRAME.to_orc("a.orc")
    FRAME.to_csv("a.csv", index=False)
    FRAME.to_json("a.json", orient="records", lines=True)
    pl.from_pandas(FRAME).write_ipc("a.arrow")
    Path("d").mkdir()
    FRAME.to_parquet("d/1.parquet")
    FRAME.to_parquet("d/2.parquet")
    with contextlib.closing(duckdb.connect("a.duckdb")) as base:
        base.execute("create table t as select 1 a")
    return tmp_path


def recorded(action):
    with ReadRecorder() as recorder:
        action()
    return recorder


def files(recorder):
    return [os.path.relpath(read.name) for read in recorder.reads if read.kind == "file"]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.parquet", lambda: pd.read_parquet("a.parquet")),
        ("a.arrow", lambda: pd.read_feather("a.arrow")),
        ("a.orc", lambda: pd.read_orc("a.orc")),
        ("a.csv", lambda: pd.read_csv("a.csv", engine="pyarrow")),
        ("a.json", lambda: pd.read_json("a.json", lines=True, engine="pyarrow")),
        ("a.parquet", lambda: pl.read_parquet("a.parquet")),
        ("a.parquet", lambda: read_parquet_by_name("a.parquet")),
        ("a.parquet", lambda: pl.scan_parquet(Path("a.parquet")).collect()),
        ("a.parquet", lambda: pl.read_parquet_schema("a.parquet")),
        ("a.csv", lambda: pl.read_csv(source="a.csv")),
        ("a.csv", lambda: pl.scan_csv("a.csv").collect()),
        ("a.arrow", lambda: pl.read_ipc("a.arrow")),
        ("a.arrow", lambda: pl.scan_ipc("a.arrow").collect()),
        ("a.json", lambda: pl.read_ndjson("a.json")),
        ("a.json", lambda: pl.scan_ndjson("a.json").collect()),
        ("a.parquet", lambda: pq.read_table("a.parquet")),
        ("a.parquet", lambda: pq.ParquetFile("a.parquet").read()),
        ("a.parquet", lambda: pq.read_schema("a.parquet")),
        ("a.arrow", lambda: pf.read_table("a.arrow")),
        ("a.csv", lambda: pc.read_csv("a.csv")),
        ("a.csv", lambda: read_csv_by_name("a.csv")),
        ("a.json", lambda: pj.read_json("a.json")),
        ("a.orc", lambda: po.read_table("a.orc")),
        ("a.arrow", lambda: ipc.open_file(pa.memory_map("a.arrow")).read_all()),
        ("a.arrow", lambda: pa.OSFile("a.arrow").read()),
        ("a.csv", lambda: pa.input_stream("a.csv").read()),
        ("a.parquet", lambda: pq.read_table(os.path.abspath("a.parquet"), filesystem=pyarrow.fs.LocalFileSystem())),
        (
            "a.parquet",
            lambda: pq.read_table(
                "a.parquet", filesystem=pyarrow.fs.SubTreeFileSystem(os.getcwd(), pyarrow.fs.LocalFileSystem())
            ),
        ),
        ("a.parquet", lambda: duckdb.sql("from 'a.parquet'").fetchall()),
        ("a.csv", lambda: sql_by_name("select * from read_csv('a.csv')").fetchall()),
        ("a.csv", lambda: duckdb.execute("from read_csv(?)", ["a.csv"]).fetchall()),
        ("a.csv", lambda: duckdb.read_csv("a.csv").fetchall()),
        ("a.parquet", lambda: duckdb.connect().execute('from "a.parquet"').fetchall()),
        ("a.parquet", lambda: duckdb.connect().read_parquet("a.parquet").fetchall()),
        ("a.duckdb", lambda: duckdb.connect("a.duckdb", read_only=True).execute("from t").fetchall()),
        ("a.duckdb", lambda: duckdb.connect().execute("attach 'a.duckdb' as base; from base.t").fetchall()),
    ],
)
def test_the_file_of_a_native_reader_counts(name, read):
    found = recorded(read)
    assert files(found) == [name]
    assert found.unseen_reads == ()
    assert all(map(read_holds, found.reads))
    Path(name).write_bytes(b"changed")
    assert not all(map(read_holds, found.reads))


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["d/1.parquet", "d/2.parquet"], lambda: pl.read_parquet("d/*.parquet")),
        (["d/1.parquet", "d/2.parquet"], lambda: pl.scan_parquet("d").collect()),
        (["d/1.parquet", "d/2.parquet"], lambda: pd.read_parquet("d")),
        (["d/1.parquet", "d/2.parquet"], lambda: ds.dataset("d").to_table()),
        (["d/1.parquet", "d/2.parquet"], lambda: duckdb.sql("from read_parquet('d/*.parquet')").fetchall()),
    ],
)
def test_a_new_file_in_a_pattern_or_folder_counts(names, read):
    found = recorded(read)
    assert files(found) == names
    assert all(map(read_holds, found.reads))
    FRAME.to_parquet("d/3.parquet")
    assert not all(map(read_holds, found.reads))


def test_what_cannot_be_told_is_said():
    def work():
        with contextlib.suppress(Exception):
            pl.scan_parquet("s3://bucket/secret/key?token=abc")
        duckdb.execute("set variable x = 'a.csv'")
        duckdb.execute("from read_csv(getvariable('x'))").fetchall()

    assert recorded(work).unseen_reads == (
        "polars.scan_parquet: s3://bucket",
        "duckdb.execute: a file whose name is computed",
    )
    with open("a.parquet", "rb") as file:
        text = file.read()
    assert recorded(lambda: (pl.read_parquet(text), pq.read_table(pa.BufferReader(text)))).unseen_reads == ()


def test_duckdb_still_finds_frames_by_the_names_of_its_caller():
    def work():
        local = FRAME
        assert len(local) == 2
        return [
            duckdb.sql("from local").fetchall(),
            duckdb.execute("from local").fetchall(),
            duckdb.connect().sql("from local").fetchall(),
        ]

    # What other tests have set in DuckDB's own connection is a read of the process.
    assert [read for read in recorded(work).reads if read.kind != "state"] == []


def test_a_wrapped_reader_is_what_it_was():
    recorded(lambda: None)
    for each in (pl.read_parquet, pc.read_csv, duckdb.execute, duckdb.sql, pq.ParquetFile, pa.OSFile, pa.memory_map):
        assert pickle.loads(pickle.dumps(each)) is each
    assert read_parquet_by_name is pl.read_parquet
    assert pl.read_parquet.__doc__
    assert isinstance(pa.OSFile("a.csv"), pa.OSFile)
    assert issubclass(pa.OSFile, pa.NativeFile)
    with pytest.raises(FileNotFoundError):
        pl.read_parquet("nowhere.parquet")


def test_a_library_that_is_imported_inside_a_step_tells_as_well():
    text = """
from stepwell.kernel_runtime.reads import ReadRecorder, watch
watch()
import pyarrow
with ReadRecorder() as recorder:
    import polars as pl, duckdb
    import pyarrow.parquet as pq, pyarrow.csv as pc
    pl.read_csv("a.csv"); pq.read_table("a.parquet"); duckdb.sql("from 'a.json'"); pc.read_csv("a.csv")
    pyarrow.OSFile("a.orc")
print(*[read.name.rsplit("/", 1)[1] for read in recorder.reads if "/a." in read.name])
"""
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
    )
    assert done.stdout.split() == ["a.csv", "a.json", "a.orc", "a.parquet"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("select * from 'a.csv', 'b.csv' where x = 'c.csv'", ["a.csv", "b.csv"]),
        ("-- it's from 'no'\nselect '/* no */' /* from 'no' */ from t join 'a.csv' using (a)", ["a.csv"]),
        ("from read_csv(['x.csv', 'y.csv'], delim = ';', columns = {'a': 'INT'})", ["x.csv", "y.csv"]),
        ("from READ_JSON_AUTO ('it''s.json')", ["it's.json"]),
        ("select count(*) from t where name = 'from'", []),
        ("copy (from t) to 'out.csv'", []),
        ("copy t from 'in.csv' (format csv)", ["in.csv"]),
        ("select 'a.csv'", ["a.csv"]),
        ("from sqlite_scan('base.db', 'table')", ["base.db", "table"]),
    ],
)
def test_the_files_that_a_statement_names(text, read):
    assert files_named(text).read_files == read
