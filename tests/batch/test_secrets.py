"""A secret that a notebook uses is in no file that we write and in nothing that we print."""

from __future__ import annotations

import json

import duckdb

ENVIRONMENT = {
    "API_TOKEN": "zq-from-the-environment-11",
    "MAIL_ADDRESS_OF_BOSS": "zq-under-a-plain-name-22",
    "PLAIN_PIN": "zq77",
}
LITERALS = ["zq-literal-33", "zq-literal-44", "zq-literal-55", "zq-literal-66", "zq-literal-88"]
HELPERS = """
import os

class Client:
    def __init__(self, host, password):
        self.host, self.password = host, password

    def get(self):
        return [len(self.host), len(self.password)]

API_KEY = "zq-literal-33"
OPTIONS = {"host": "h", "credentials": "zq-literal-88"}

def fetch(extra=0, token="zq-literal-44"):
    secret_word = "zq-literal-55"
    assert token and secret_word and API_KEY and OPTIONS
    return Client("example.org", password="zq-literal-66").get() + [extra]
"""
CELLS = (
    "%load_ext stepwell",
    "import os, stepwell, helpers\nTOKEN = stepwell.secret('API_TOKEN')\nBOSS = os.environ['MAIL_ADDRESS_OF_BOSS']\nPIN = os.environ['PLAIN_PIN']\nheaders = {'Authorization': f'Bearer {TOKEN}', 'to': BOSS}\nn = 1",
    "def call():\n    return len(TOKEN), len(BOSS), len(PIN), len(headers), n",
    "%%asset raw\nraw = helpers.fetch(), call(), len(os.environ['API_TOKEN'])",
    "%%asset clean\nclean = len(raw)",
    "TOKEN",
    "os.environ['API_TOKEN'] += '-new'\nTOKEN = stepwell.secret('API_TOKEN')\nBOSS += '-new'\nheaders['to'] = BOSS\nn = 2\nhelpers.API_KEY += '-new'",
    "%why raw",
    "%why raw --json",
    "%stepwell status\n%stepwell code raw\n%stepwell runs",
    "%why raw --accept",
    "%%asset broken\nraise ValueError(f'no access to https://u:{TOKEN}@example.org with {BOSS}')\nbroken = 1",
)


def test_no_secret_is_kept_or_shown(write, stepwell, project, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    (project / "helpers.py").write_text(HELPERS)
    path = write("daily.ipynb", *CELLS[:-1])

    done = stepwell("run", path, "--json", "done.ipynb")

    assert done.code == 0, done.err
    executed = json.loads((project / "done.ipynb").read_text())
    shown = "".join(
        "".join(output.get("text", [])) + str(output.get("data", "")) for cell in executed["cells"] for output in cell["outputs"]
    )
    assert "secret('API_TOKEN')" in shown
    assert "n is now from" in shown
    failing = write("failing.ipynb", *CELLS[:2], CELLS[-1])
    failed = stepwell("run", failing, "--json")
    kept = _catalog(project / ".stepwell" / "catalog.duckdb")
    assert any("fetch" in text for text in kept)
    # What the user's own exception says is in the executed notebook, as in any; nowhere else.
    for saved in (project / ".stepwell" / "runs").glob("failing*"):
        saved.unlink()
    everything = {
        "the notebook's outputs": shown,
        "the report": done.out + done.err + failed.out + failed.err,
        "the states": stepwell("status", "--json").out,
        "the catalog": "\n".join(kept),
        **{str(file): file.read_bytes().decode("latin-1") for file in (project / ".stepwell").rglob("*") if file.is_file()},
    }
    found = [
        (place, secret) for place, text in everything.items() for secret in [*ENVIRONMENT.values(), *LITERALS] if secret in text
    ]
    assert found == []


def _catalog(path):
    """Every row of every table as text: DuckDB compresses what it writes."""
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()]
        return [str(row) for name in tables for row in connection.execute(f'SELECT * FROM "{name}"').fetchall()]
