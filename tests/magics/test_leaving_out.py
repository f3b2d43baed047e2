"""The flags --ignore, --max-age and --volatile."""

import stepwell
from stepwell.kernel_runtime.errors import InvalidDefinitionError


def statuses(notebook):
    return {step.key: step.status for step in notebook.session.last_run.steps}


def test_ignored_names_do_not_make_an_asset_stale(notebook):
    notebook("import sqlite3\nsession, TOKEN, LIMIT = sqlite3.connect(':memory:'), 'a', 1")
    cell = "%%asset --ignore session,TOKEN raw\nraw = (session.execute('select 1').fetchall(), TOKEN, LIMIT)"
    notebook(cell)
    notebook("TOKEN = 'b'\nsession = sqlite3.connect(':memory:')")
    notebook(cell)
    assert statuses(notebook) == {"raw": "reused"}
    notebook("LIMIT = 2")
    notebook(cell)
    assert statuses(notebook) == {"raw": "executed"}


def test_a_volatile_cell_runs_every_time(notebook):
    for _ in range(2):
        notebook("%%asset --volatile raw\n1")
        assert statuses(notebook) == {"raw": "executed"}
    ran = notebook("%%asset clean\nraw")
    assert ran.lines[0].startswith("clean: first raw (")
    assert "volatile: the step runs in every run" in ran.lines[0]
    notebook("%%asset clean\nraw")
    assert statuses(notebook) == {"raw": "executed", "clean": "reused"}


def test_a_greatest_age_is_given_and_checked(notebook):
    notebook("%%asset --max-age 1d raw\n1")
    assert notebook.session.registry.assets["raw"].definition.node.max_age == 86_400
    text = notebook.refused("%%asset --max-age soon other\n1", InvalidDefinitionError)
    assert "invalid age 'soon'" in text
    notebook("%%sql_asset --max-age 2h daily\nSELECT 1 AS one")
    assert notebook.session.registry.assets["daily"].definition.node.max_age == 7200


def test_a_cell_that_reads_what_another_changed_is_keyed_by_it(notebook):
    notebook("SEEN = []\ndef remember(value):\n    SEEN.append(value)\n    return value")
    notebook("%%asset -r raw\nremember(1)")
    notebook("%%asset count\n(raw, len(SEEN))")
    assert notebook.ns["count"] == (1, 1)
    notebook("SEEN.clear()")
    notebook("%%asset count\n(raw, len(SEEN))")
    assert notebook.ns["count"] == (1, 0)


SESSION = """
import http.cookiejar
class Session:
    def __init__(self):
        self.base, self.cookies, self.jar = "x", {}, None
    def get(self, path):
        self.cookies["visit"] = len(self.cookies)
        return self.base + path
class Client:
    def __init__(self):
        self.session = Session()
session, client = Session(), Client()
def fetch():
    return client.session.get("/b")
"""


def remedies(notebook, key):
    """Return what %why advises against each of its reasons."""
    found = stepwell.why(key).steps[0].reasons
    lines = [line for reason in found for line in reason.detail.splitlines() if ": " in line]
    return [part for line in lines for part in line.rpartition(": ")[2].split(", or ")]


def test_the_remedy_for_a_session_with_cookies_works_when_it_is_followed(notebook):
    notebook(SESSION)
    for cell, path in (("%%asset{} raw\nsession.get('/a')", "session"), ("%%asset{} raw\nfetch()", "client.session")):
        notebook(cell.format(""))
        # What the step itself changed is no reason to run it again; what a cell changes is.
        assert "raw: fresh" in notebook("%why raw").text
        notebook(f"{path}.cookies['user'] = 'nobody'")
        flag, opaque = remedies(notebook, "raw")
        assert (flag, opaque) == (
            f"--ignore {path}.cookies",
            f'stepwell.opaque({path}.cookies, version="1")',
        )
        notebook(cell.format(f" {flag}"))
        notebook(f"{path}.cookies['user'] = 'somebody'")
        assert "raw: fresh" in notebook("%why raw").text
        assert "reused" in notebook(cell.format(f" {flag}")).text
        # Nothing else is left out.
        notebook(f"{path}.base = 'y{path}'")
        assert f"{path}.base: 'x' -> 'y{path}'" in notebook("%why raw").text
        notebook(cell.format(""))
        notebook(f"import stepwell\n{opaque}")
        notebook(cell.format(""))
        notebook(f"{path}.cookies['user'] = 'another'")
        assert "reused" in notebook(cell.format("")).text
        notebook(SESSION)


def test_every_remedy_for_a_session_that_cannot_be_compared_works(notebook):
    notebook(f"{SESSION}\nsession.jar = http.cookiejar.CookieJar()")
    cell = "%%asset{} raw\nlen(list(session.jar))"
    notebook(cell.format(""))
    assert "raw: unverifiable" in notebook("%why raw").text
    flag, opaque = remedies(notebook, "raw")
    notebook(cell.format(f" {flag}"))
    assert "reused" in notebook(cell.format(f" {flag}")).text
    notebook(f"import stepwell\n{opaque}")
    notebook(cell.format(""))
    assert "reused" in notebook(cell.format("")).text


def test_the_remedies_for_secrets_work(notebook, monkeypatch):
    monkeypatch.setenv("SITE_ACCESS", "old-value-1")
    notebook("import os, stepwell\nACCESS = os.environ['SITE_ACCESS']\nconf = {'auth_token': 'one', 'n': 1}")
    notebook("%%asset size\nlen(ACCESS)")
    notebook("%%asset many\nlen(conf)")
    monkeypatch.setenv("SITE_ACCESS", "old-value-2")
    notebook("ACCESS = os.environ['SITE_ACCESS']\nconf['auth_token'] = 'two'")
    assert remedies(notebook, "size") == ["--ignore ACCESS", "read it with stepwell.secret('SITE_ACCESS')"]
    assert remedies(notebook, "many") == ["--ignore conf", 'stepwell.opaque(conf, version="1")']
    notebook("ACCESS = stepwell.secret('SITE_ACCESS')")
    notebook("%%asset size\nlen(ACCESS)")
    monkeypatch.setenv("SITE_ACCESS", "old-value-3")
    notebook("ACCESS = stepwell.secret('SITE_ACCESS')")
    assert "reused" in notebook("%%asset size\nlen(ACCESS)").text
    notebook("%%asset many --ignore conf\nlen(conf)")
    notebook("conf['auth_token'] = 'three'")
    assert "reused" in notebook("%%asset many --ignore conf\nlen(conf)").text
    assert "--ignore conf was added" in notebook("%why many").text


def test_an_opaque_client_lets_an_asset_be_reused(notebook):
    notebook("import sqlite3, stepwell\nsession = stepwell.opaque(sqlite3.connect(':memory:'), version='test')")
    for status in ("executed", "reused"):
        notebook("%%asset raw\nsession.execute('select 1').fetchall()")
        assert statuses(notebook) == {"raw": status}
    notebook("session = stepwell.opaque(sqlite3.connect(':memory:'), version='production')")
    notebook("%%asset raw\nsession.execute('select 1').fetchall()")
    assert statuses(notebook) == {"raw": "executed"}


def test_a_secret_that_a_cell_assigns_or_puts_somewhere_is_not_stored(notebook):
    secrets = ("zq9x8w7v6u5t4s3r2q1p", "AKIA0123456789ABCDEF", "hunter2-hunter2")
    notebook("settings = {}")
    body = "API_KEY = '{}'\nconn = '{}'\nsettings['password'] = '{}'\nrows = [1, 2]\nn = len(API_KEY)"
    notebook("%%asset n\n" + body.format(*secrets))
    assert notebook.ns["API_KEY"] == secrets[0]
    folder = notebook.session.store.directory
    notebook.session.close()
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert [secret for secret in secrets if secret.encode() in kept] == []
