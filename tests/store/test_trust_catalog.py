"""A store directory or a catalog that somebody crafted: opening and asking it reads and writes nothing elsewhere."""

import os

import duckdb
import pytest

import stepwell
from stepwell.kernel_runtime.errors import StepwellError, StoreDamagedError, UntrustedStoreError
from stepwell.kernel_runtime.records.materializations import Current
from stepwell.kernel_runtime.store import housekeeping, retention
from stepwell.kernel_runtime.store.catalog.tables import read_attempts, read_logs
from stepwell.kernel_runtime.store.signing import read_outputs
from stepwell.kernel_runtime.store.store import open_store
from stepwell.kernel_runtime.text import in_one_line, printable
from tests.store.rows import executed, made, record

pytestmark = pytest.mark.attack(
    "A catalog was crafted: it contains views, other tables, or rows that name files outside of the store.",
    "Opening and querying the catalog reads and writes nothing outside of the store.",
)


@pytest.fixture
def kept(tmp_path):
    store = open_store(tmp_path / "kept")
    record(store, made(store, "a", 5)).wait()
    store.close()
    return tmp_path / "kept"


@pytest.mark.parametrize(
    "name",
    ["objects", "tmp", "runs", "catalog.duckdb", "catalog.duckdb.wal", "catalog.lock", "want.lock", ".gitignore"],
)
@pytest.mark.parametrize("to", ["there", "nowhere"])
def test_a_link_in_the_store_is_neither_followed_nor_written_through(kept, tmp_path, name, to):
    path, target = kept / name, tmp_path / "target"
    if to == "there":
        if path.exists():
            path.rename(target)
        else:
            target.write_bytes(b"precious")
    elif path.is_dir():
        for each in path.iterdir():
            each.rename(tmp_path / each.name)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(target)
    before = target.read_bytes() if target.is_file() else target.exists()
    with pytest.raises(UntrustedStoreError, match="contains a link"):
        open_store(kept)
    assert (target.read_bytes() if target.is_file() else target.exists()) == before


def test_a_link_to_a_store_is_its_owners_choice(kept, tmp_path):
    (tmp_path / "link").symlink_to(kept)
    assert open_store(tmp_path / "link").keys() == ["a"]


CRAFTED = {
    "a view in a table's place": [
        "DROP TABLE materializations",
        "CREATE VIEW materializations AS SELECT * FROM read_csv('{bait}')",
    ],
    "a view of the format": [
        "DROP TABLE meta",
        "CREATE VIEW meta AS SELECT 2 AS format, content AS store_id FROM read_text('{bait}')",
    ],
    "a view beside the tables": ["CREATE VIEW harmless AS SELECT 1"],
    "a trigger": [
        "CREATE TABLE loot (text VARCHAR)",
        "CREATE TRIGGER t AFTER INSERT ON steps FOR EACH STATEMENT INSERT INTO loot SELECT content FROM read_text('{bait}')",
    ],
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_catalog_that_is_more_than_tables_is_refused(kept, tmp_path, name):
    bait = tmp_path / "secret.csv"
    bait.write_text("id\nhidden\n")
    with duckdb.connect(str(kept / "catalog.duckdb")) as connection:
        for statement in CRAFTED[name]:
            connection.execute(statement.format(bait=bait))
    bait.unlink()
    # The file is not there: who reads it would say so.
    with pytest.raises(UntrustedStoreError, match="which Stepwell never creates"):
        open_store(kept)


def test_macros_named_like_what_we_call_are_not_called(kept, tmp_path):
    with duckdb.connect(str(kept / "catalog.duckdb")) as connection:
        for name in ("arg_max", "max", "unnest", "count"):
            connection.execute(f"CREATE MACRO {name}(a, b := 1) AS (SELECT content FROM read_text('{tmp_path / 'none'}'))")
    store = open_store(kept)
    assert store.keys() == ["a"]
    assert store.snapshot(["a"], ["a"], ["c1"]).current["a"]


HARD = [
    "it's",
    'quo"te',
    "a; DROP TABLE runs; --",
    "$1",
    "@runs",
    "?",
    "{}",
    "%s",
    "ä\n;\x1b[2J",
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "x" * 5000,
]


@pytest.mark.parametrize("key", HARD)
def test_a_name_is_never_sql(store, key):
    record(store, made(store, key, 5, notebook=key)).wait()
    record(store, made(store, "b", 6)).wait()
    assert store.keys() == sorted([key, "b"])
    assert len(store.current(key)) == 1
    assert [m.key for m in store.history(key)] == [key]
    assert list(store.snapshot([key], [key], ["c1"]).current) == [key]
    assert store.catalog.ask(read_logs, key, key) == []
    assert store.codes([key]).get(key) is None


def test_what_rows_say_reaches_a_terminal_as_text_only(store, python):
    from dataclasses import replace

    evil = "\x1b]0;owned\x07\x1b[2J\r\u202eabc\nnext"
    m = made(store, "a" + evil, 5)
    m = replace(m, notebook=evil, value=replace(m.value, type_name=evil, summary=evil))
    store.record_step(executed(m), current=[Current(evil, m.key, m)]).wait()
    shown = python(f"""
        import stepwell
        from stepwell.commands.command import find_command

        status = stepwell.status(store={str(store.directory)!r})
        print(status)
        print(find_command("status").json([status]))
    """)
    lines = shown.splitlines()
    assert all(line.isprintable() for line in lines)
    assert "\\x1b[2J" in lines[0]
    assert '"key": "a\\u001b' in shown
    assert printable("two\nlines\tand \x1b") == "two\nlines\tand \\x1b"
    assert in_one_line("two\nlines") == "two\\nlines"


def test_a_column_that_cannot_be_read_is_an_error_of_ours(store):
    m = made(store, "a", 5)
    record(store, m).wait()
    rows = {}
    for column in ("inputs", "reads", "metadata", "classes", "unverifiable"):
        for text in ("[" * 100_000, "{", "5", '[["a"]]', "null"):
            store.catalog.change(
                lambda connection, name, column=column, text=text: connection.execute(
                    f"UPDATE {name}.materializations SET {column} = ?", [text]
                )
            )
            try:
                rows[column, text] = store.current("a")
            except StoreDamagedError as error:
                rows[column, text] = error.what
            store.catalog.change(
                lambda connection, name, column=column: connection.execute(
                    f"UPDATE {name}.materializations SET {column} = '{'{}' if column == 'metadata' else '[]'}'"
                )
            )
    assert set(rows.values()) == {
        f"the record of 'a', materialization {m.id!r}, cannot be read: the catalog was changed or damaged"
    }


HOSTILE = {
    "VARCHAR": [None, "[[1,2,3,4,5]]", '{"parts":[[1,2,3,4,5]]}'],
    "DOUBLE": [None, -1.0, float("inf")],
    "BIGINT": [None, -1],
    "INTEGER": [None, -1],
    "BLOB": [None, b"\xff" * 40],
}


@pytest.mark.attack(
    "A column of a catalog contains any value: NULL, unexpected JSON, impossible times.",
    "Every command gives its result, or one error that names the record that cannot be read.",
)
def test_any_value_in_any_column_gives_an_answer_or_an_error_of_ours(kept, capsys):
    with duckdb.connect(str(kept / "catalog.duckdb")) as connection:
        connection.execute("INSERT INTO logs (run_id, step_key, time, level, message) VALUES ('run', 'a', 1, 'INFO', 'x')")
        connection.execute("INSERT INTO outputs VALUES ('run', 'a', 'stream', 'stdout', 'x', '{}', '{}')")
        connection.execute(
            "INSERT INTO runs (run_id, kind, notebook, targets, status, started, batch, parent_run_id, root_run_id, error, process) "
            """VALUES ('run', 'assets', 'n', '["a"]', 'success', 1, '', '', '', '["E","m","t","w"]', '')"""
        )
        columns = connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() JOIN duckdb_tables() USING (table_name) "
            "WHERE table_name <> 'meta' AND data_type <> 'TIMESTAMP'"
        ).fetchall()
    refused, store = 0, open_store(kept)
    questions = (
        lambda: store.runs(limit=5),
        lambda: store.run("run"),
        lambda: store.catalog.ask(read_attempts, "a", 5),
        lambda: read_outputs(store.catalog, store.signer, "run", "a"),
        lambda: store.catalog.ask(read_logs, "run", "a"),
        lambda: store.snapshot(["a"], ["a"], ["c1"]),
        lambda: str(stepwell.status(store=store)),
        lambda: stepwell.status(store=store).as_dict(),
        lambda: store.codes(["c1"]).get("c1"),
        lambda: retention.rules_of(store),
        lambda: housekeeping.collect(store, dry_run=True),
    )
    for table, column, kind in columns:
        (rows,) = store.catalog.ask(
            lambda connection, name, table=table, column=column: [
                connection.execute(f"SELECT rowid, {column} FROM {name}.{table}").fetchall()
            ]
        )
        for value in HOSTILE[kind]:
            change = f"UPDATE @{table} SET {column} = ?"
            store.catalog.change(lambda connection, name: connection.execute(change.replace("@", f"{name}."), [value]))  # noqa: B023
            for question in questions:
                try:
                    question()
                except StepwellError:
                    refused += 1
        for row, value in rows:
            change = f"UPDATE @{table} SET {column} = ? WHERE rowid = ?"
            store.catalog.change(
                lambda connection, name: connection.execute(change.replace("@", f"{name}."), [value, row])  # noqa: B023
            )
    assert refused > 50
    assert store.get(store.current("a")[0].materialization.value, key="a") == 5


def test_a_store_that_everybody_can_write_executes_nothing_of_theirs(kept, tmp_path, monkeypatch):
    from dataclasses import replace

    from stepwell.kernel_runtime.errors import UntrustedValueError

    kept.chmod(0o777)
    store = open_store(kept)
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "their key"))
    theirs = open_store(kept)
    m = made(theirs, "a", [os.getcwd])
    record(store, m).wait()
    (row,) = [row for row in store.current("a") if row.materialization.id == m.id]
    with pytest.raises(UntrustedValueError):
        store.get(row.materialization.value, key="a")
    assert store.snapshot(["a"], [], []).foreign.keys() == {m.id}
    assert replace(m) == m
