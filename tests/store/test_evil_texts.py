"""Texts of a store from somebody else: control, bidi and invisible characters in every text column reach no face as they are; markup is none."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import duckdb
import pytest

from stepwell.kernel_runtime.text import as_html, as_json, coloured, in_one_line, printable

ROOT = Path(__file__).resolve().parents[2]
EVIL = "\x1b]0;owned\x07\x1b[2J\r\u202e\x9b31m\u200b\u2066\ufeff\U000e0041\x7f<img src=x onerror=alert(1)>"
MAKE = """
import sys, stepwell, pandas as pd

@stepwell.asset
def a(context: stepwell.AssetExecutionContext):
    context.log.info("hello")
    print("printed")
    context.add_output_metadata({"m": "x"})
    return pd.DataFrame({"c": [1]})

@stepwell.asset
def word(a):
    return "some text"

@stepwell.asset
def b(a):
    raise ValueError("boom")

try:
    stepwell.materialize([a, word, b], store=sys.argv[1])
except ValueError:
    pass
"""
KEPT = {
    ("runs", "status"),
    ("runs", "run_id"),
    ("steps", "status"),
    ("steps", "run_id"),
    ("outputs", "run_id"),
    ("logs", "run_id"),
    ("meta", "store_id"),
}
"""What a row is found by, and what it would not be read as with another text."""


def environment(folder, **more):
    return {
        **os.environ,
        "HOME": str(folder),
        "STEPWELL_KEY_FILE": str(folder / "key"),
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": str(ROOT),
        **more,
    }


def raw(text):
    """Return the characters of a text that no face may show."""
    return sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t"})


def evil(value, *, keys):
    """Return JSON with something evil in every text of it, and in names where they are anybody's."""
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, dict):
        return {(key + EVIL if keys else key): evil(member, keys=keys) for key, member in value.items()}
    return [evil(member, keys=keys) for member in value] if isinstance(value, list) else value


def craft(directory):
    """Write EVIL into every text column of every table; what others refer to is changed with what refers to it."""
    with duckdb.connect(str(directory / "catalog.duckdb")) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE data_type = 'VARCHAR' AND NOT internal AND database_name = current_database()"
        ).fetchall()
        # These bind rows to each other and to files; "key" and "step_key" get keys of their own below.
        same = {
            "memo_key",
            "code_version",
            "data_version",
            "codec",
            "digest",
            "object_name",
            "id",
            "materialization",
            "materializations",
            "kind",
            "key",
            "step_key",
        }
        changed = 0
        for table, column in columns:
            if (table, column) in KEPT or column in same:
                continue
            changed += 1
            rows = connection.execute(f'SELECT rowid, "{column}" FROM "{table}" WHERE "{column}" IS NOT NULL').fetchall()
            for rowid, text in rows:
                try:
                    value = json.loads(text)
                except ValueError:
                    value = None
                new = (
                    json.dumps(evil(value, keys=column == "metadata"))
                    if isinstance(value, list | dict) and column not in ("classes", "inputs", "reads")
                    else text
                    if column in ("classes", "inputs", "reads")
                    else text + EVIL
                )
                connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', [new, rowid])
        assert changed > 12
        for table in ("materializations", "current", "steps"):
            # A second asset, whose very key is evil.
            connection.execute(f"UPDATE {table} SET key = key || ? WHERE key = 'word'", [EVIL])


@pytest.fixture(scope="module")
def crafted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evil")
    made = subprocess.run(
        [sys.executable, "-c", MAKE, str(folder / "s")],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    craft(folder / "s")
    return folder


COMMANDS = [
    ("status",), ("status", "--json"), ("status", "--sizes"), ("runs",), ("runs", "--json"), ("versions", "a"), ("versions", "a", "--json"), ("versions", "word" + EVIL),
    ("diff", "a"), ("diff", "a", "--json"), ("diff", "word" + EVIL), ("keep",), ("keep", "--json"), ("gc", "--dry-run"), ("gc", "--dry-run", "--json"),
    ("forget", "a"), ("forget", "a", "--json"), ("forget", "word" + EVIL), ("forget", EVIL), ("doctor",), ("doctor", "--json"), ("pack", "a", "out.zip"), ("pack", "a", "o.zip", "--json"),
    *(("sql", f"FROM stepwell.{view}", *form) for view in ("runs", "logs", "steps", "materializations", "current") for form in ((), ("--json",))),
    ("sql", "FROM stepwell.logs", "--csv"), ("sql", "FROM stepwell.logs", "--format", "jsonl"), ("sql", f'SELECT 1 AS "{EVIL}"'.replace("\x00", "")),
    ("sql", f"SELECT {EVIL}"), ("trust", "out.zip", "--yes"), ("trust", EVIL), ("run", EVIL), (EVIL,),
]  # fmt: skip
DRIVER = """
import contextlib, io, json, os, sys
from stepwell.batch.command_line import main
from stepwell.kernel_runtime.session import get_session
store, other, commands = sys.argv[1], sys.argv[2], json.loads(sys.stdin.read())
sys.stdin = io.StringIO("n\\n")
told = []
for words in commands:
    out, err = io.StringIO(), io.StringIO()
    used = other if words[0] == "trust" else store
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*words, "--store", used] if words[0] not in ("run",) else words)
        except SystemExit as ended:
            code = ended.code
        except Exception as error:
            code = repr(error)
    told.append([words, code, out.getvalue(), err.getvalue()])
sys.stdout.write(json.dumps(told))
"""


@pytest.mark.attack(
    "Every text of a store contains control sequences of terminals, changes of the writing direction, invisible characters and HTML.",
    "Every command, with and without --json, prints these characters as escapes, and a JSON parser returns the original texts.",
)
def test_no_command_shows_them(crafted):
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "s", "s2"],
        cwd=crafted,
        env=environment(crafted),
        input=json.dumps(COMMANDS),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [(words, raw(out + err)) for words, _, out, err in told if raw(out + err)] == []
    assert [(words, code) for words, code, *_ in told if not isinstance(code, int)] == []
    shown = {tuple(words): out for words, _, out, _ in told}
    assert "\\x1b" in shown[("versions", "a")]
    assert "\\u202e" in shown[("status",)]
    assert EVIL in json.dumps(json.loads(shown[("runs", "--json")]), ensure_ascii=False).encode().decode(
        "unicode_escape", "replace"
    ) or any(EVIL in run["notebook"] for run in json.loads(shown[("runs", "--json")])["runs"])


SHELL = """
import os, sys
os.environ["STEPWELL_STORE"] = sys.argv[1]
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
EVIL = sys.argv[2]
sh = InteractiveShell.instance()
sh.run_line_magic("load_ext", "stepwell")
sh.run_cell(open("mine.py").read())
html = ""
for line in ("stepwell status", "stepwell status --sizes", "stepwell runs", "stepwell logs", "stepwell versions a", "stepwell inputs a", "stepwell code a", "stepwell store", "stepwell load a",
             "stepwell diff a", "stepwell doctor", "stepwell keep", "stepwell gc --dry-run", "stepwell forget a", "stepwell trust --all", "why a", "why b", "why a --json", "lineage a", "lineage"):
    with capture_output() as c:
        try:
            sh.run_line_magic(*line.split(" ", 1)) if " " in line else sh.run_line_magic(line, "")
        except BaseException as error:
            print(type(error).__name__, error)
    html += "".join(str(o.data.get(mime, "")) for o in c.outputs for mime in ("text/html", "image/svg+xml"))
    print("@@", line)
    print(c.stdout + c.stderr)
    for o in c.outputs:
        print(o.data.get("text/plain", ""))
import stepwell
print("@@ versions")
print(repr(stepwell.versions("a")), str(stepwell.why("a")))
formatter = sh.display_formatter.formatters["text/html"]
html += formatter(stepwell.versions("a")) or ""
from stepwell.kernel_runtime.session import get_session
from stepwell.widgets.lineage import LineageWidget
widget = LineageWidget(get_session())
state = repr([widget.svg, widget.nodes, widget.details, widget.groups, widget.run, widget.note])
html += widget.svg
print("@@ html")
print(html)
print("@@ markup", "<img src=x" in html, len(html))
print("@@ widget", [c for text in (widget.svg, *map(str, ())) for c in text if c in EVIL and not c.isprintable()])
def texts(value):
    if isinstance(value, str): yield value
    elif isinstance(value, dict):
        for k, v in value.items(): yield k; yield from texts(v)
    elif isinstance(value, (list, tuple)):
        for v in value: yield from texts(v)
for part in (widget.nodes, widget.details, widget.groups, widget.run):
    for text in texts(part): print(text)
"""


@pytest.mark.attack(
    "A notebook uses a store whose texts contain control sequences, invisible characters and HTML.",
    "Magics, explanations, the lineage and HTML tables show these characters as escapes, and HTML in a text is shown as text.",
)
def test_no_face_of_a_kernel_shows_them(crafted):
    (crafted / "mine.py").write_text(MAKE.split("try:", maxsplit=1)[0])
    done = subprocess.run(
        [sys.executable, "-c", SHELL, "s", EVIL],
        cwd=crafted,
        env=environment(crafted),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Differences have lines with two of these signs.
    parts = [part.partition("\n") for part in done.stdout.split("@@ ")[1:]]
    assert len(parts) > 20
    assert [(head, raw(text)) for head, _, text in parts if raw(text)] == []
    assert raw(done.stderr) == []
    assert "@@ markup False" in done.stdout
    assert "\\x1b" in done.stdout


def test_json_reads_back_and_every_invisible_character_is_written_out():
    assert json.loads(as_json({EVIL: [EVIL, 1, None]}, indent=2)) == {EVIL: [EVIL, 1, None]}
    every = "".join(
        chr(at) for at in range(sys.maxunicode + 1) if unicodedata.category(chr(at)) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )
    for form in (printable, in_one_line, as_json, as_html, coloured):
        assert set(raw(form(every).replace("\x1b[0m", ""))) == set()
    assert printable("a\n\tb é 日本 👍") == "a\n\tb é 日本 👍"
    assert in_one_line("a\nb") == "a\\nb"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b[1;38;5;9mbold", "\x1b[1;38;5;9mbold\x1b[0m"),
        ("10%\r20%\r", "10%\\r20%\\r"),
        ("\x1b[2J\x1b]0;t\x07\x9b31m", "\\x1b[2J\\x1b]0;t\\x07\\x9b31m"),
        ("plain\n", "plain\n"),
    ],
)
def test_text_of_others_keeps_its_colours_and_nothing_else(text, shown):
    assert coloured(text) == shown


NOISY = """
import sys, stepwell
sys.path.insert(0, ".")

@stepwell.asset
def noisy():
    print("\\x1b[31mred\\x1b[0m 10%\\r20%\\r\\x1b[2K done")
    return 1

if len(sys.argv) > 2:
    stepwell.materialize([noisy], store=sys.argv[1])
from stepwell.kernel_runtime.store.signing import read_outputs
from stepwell.kernel_runtime.store.store import open_store
store = open_store(sys.argv[1])
(item,) = store.history("noisy")
print(repr([each.text for each in read_outputs(store.catalog, store.signer, item.run_id, item.step_key)]))
store.close()
"""


@pytest.mark.attack(
    "The recorded output of a step was recorded by another person, or changed after it was recorded.",
    "Only the text and colours of the output are shown again. Output that the user's key signed is shown again unchanged.",
)
def test_output_is_shown_again_as_it_was_where_our_key_signed_it(tmp_path):
    def texts(*arguments, key="key"):
        env = environment(tmp_path, STEPWELL_KEY_FILE=str(tmp_path / key))
        done = subprocess.run(
            [sys.executable, "-c", NOISY, *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    as_printed = repr(["\x1b[31mred\x1b[0m 10%\r20%\r\x1b[2K done\n"])
    safe = repr(["\x1b[31mred\x1b[0m 10%\\r20%\\r\\x1b[2K done\n\x1b[0m"])
    assert texts("s", "make") == as_printed
    assert texts("s") == as_printed
    assert texts("s", key="another") == safe
    shutil.copytree(tmp_path / "s", tmp_path / "changed")
    with duckdb.connect(str(tmp_path / "changed" / "catalog.duckdb")) as connection:
        connection.execute("UPDATE outputs SET text = replace(text, 'done', 'gone') WHERE kind = 'stream'")
    assert texts("changed") == safe.replace("done", "gone")
