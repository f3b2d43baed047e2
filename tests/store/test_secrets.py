"""Where secrets of code end up: in no table, no value file, no pack, no traceback and no explanation that Stepwell keeps or shows."""

import json
import os
import secrets
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import duckdb
import pytest

import stepwell
from stepwell.kernel_runtime.session import Session
from stepwell.kernel_runtime.session.explanation import explain

ROOT = Path(__file__).resolve().parents[2]
BODIES = {
    # By name: one that a secret's name or use stands at, with a value that has no form of its own.
    "a global": "API_KEY = {S!r}\ndef f(): return len(API_KEY)",
    "an address": "db = 'postgresql://bob:{S}@db.example.org/x'\ndef f(): return len(db)",
    "a dict": "config = dict(user='bob', password={S!r})\ndef f(): return len(config['password'])",
    "a list of headers": "headers = [('Authorization', 'Bearer ' + {S!r})]\ndef f(): return len(headers)",
    "a pair": "headers = [('X-Api-Key', {S!r})]\ndef f(): return len(headers)",
    "arguments of a command": "argv = ['run', '--password', {S!r}]\ndef f(): return len(argv)",
    "a dataclass": "from dataclasses import dataclass\n@dataclass\nclass C:\n  user: str\n  password: str\nc = C('bob', {S!r})\ndef f(): return len(c.password)",
    "a default of a dataclass": "from dataclasses import dataclass\n@dataclass\nclass C:\n  password: str = {S!r}\ndef f(): return len(C().password)",
    "an attribute of a class": "class C:\n  api_key = {S!r}\ndef f(): return len(C.api_key)",
    "a default": "def g(password={S!r}): return len(password)\ndef f(): return g()",
    "a default by keyword": "def g(*, client_secret={S!r}): return len(client_secret)\ndef f(): return g()",
    "a constant": "def f():\n  password = {S!r}\n  return len(password)",
    "one of several": "def f():\n  user, password = 'bob', {S!r}\n  return len(password)",
    "an argument": "def connect(**k): return k\ndef f():\n  return len(connect(user='bob', password={S!r}))",
    "an argument by position": "def login(a, b): return 1\ndef f(): return login('bob', {S!r})",
    "an argument of a client": "def make_client(a): return 1\ndef f(): return make_client({S!r})",
    "a default of the environment": "import os\ndef f(): return len(os.environ.get('MY_API_TOKEN', {S!r}))",
    "a header": "def f():\n  h = {{'Authorization': 'Bearer {S}'}}\n  return len(h)",
    "a formatted text": "def f():\n  n = 1\n  return len(f'https://api.example.org/?n={{n}}&api_key={S}')",
    "a formatted address": "def f():\n  host = 'h'\n  return len(f'https://bob:{S}@{{host}}/x')",
    "added texts": "def f():\n  host = 'h'\n  return len('https://bob:{S}@' + host)",
    "a format": "def f(): return len('password=%s' % {S!r})",
    "lines of settings": "def f():\n  conf = '''\n[db]\npassword = {S}\n'''\n  return len(conf)",
    "lines of YAML": "def f():\n  conf = '''\ndb:\n  password: {S}\n'''\n  return len(conf)",
    "JSON": 'def f(): return len(\'{{"user": "bob", "password": "{S}"}}\')',
    "a helper": "def _auth():\n  token = {S!r}\n  return token\ndef f(): return len(_auth())",
    "a function named so": "def api_key(): return {S!r}\ndef f(): return len(api_key())",
    "a lambda": "get_password = lambda: {S!r}\ndef f(): return len(get_password())",
    "a closure": "def mk():\n  token = {S!r}\n  def g(): return len(token)\n  return g\ng = mk()\ndef f(): return g()",
    "a partial": "import functools\ng = functools.partial(lambda password: len(password), password={S!r})\ndef f(): return g()",
    "bytes": "SECRET = {S!r}.encode()\ndef f(): return len(SECRET)",
    "an instance": "class DB:\n  def __init__(self, password): self.password = password\ndb = DB({S!r})\ndef f(): return len(db.password)",
    "a comment": "def f():\n  # old password: {S}\n  return 1",
    "a comment without a sign": "def f():\n  n = 1  # the password was {S} once\n  return n",
    "a docstring": "def f():\n  '''password={S}'''\n  return 1",
    "a comparison": "def f():\n  password = str(1)\n  return int(password == {S!r})",
    "a setting by name": "class C: pass\ndef f():\n  c = C()\n  setattr(c, 'password', {S!r})\n  return 1",
    "a failing line": "def connect(u, password): raise ConnectionError('refused')\ndef f(): return connect('bob', password={S!r})",
    "a failing message": "def f(): raise ConnectionError('no access with password={S}')",
    "a message without quotes": "def f(): raise ConnectionError('the token {S} is not valid')",
    "lines of XML": "def f():\n  conf = '<db><password>{S}</password></db>'\n  return len(conf)",
    "a signed address": "url = 'https://h.example.org/c?sv=2022&sig={S}&se=1'\ndef f(): return len(url)",
    "a login of curl": "def f(): return len('curl -u bob:{S} https://h.example.org')",
    "a line of netrc": "def f(): return len('machine h login bob password {S}')",
    "metadata with lines of YAML": "def f(context: stepwell.AssetExecutionContext):\n  context.add_output_metadata(dict(conf='db:\\n  password: ' + ''.join(reversed({R!r}))))\n  return 1",
    "a logged line": "def f(context: stepwell.AssetExecutionContext):\n  context.log.info('connected with password=' + ''.join(reversed({R!r})))\n  return 1",
    "metadata": "def f(context: stepwell.AssetExecutionContext):\n  context.add_output_metadata(dict(password=''.join(reversed({R!r}))))\n  return 1",
}
FORMS = {
    # By form: whatever it is called.
    "AWS": "AKIA{20U}", "AWS, in order": "AKIA0123456789ABCDEF", "AWS, temporary": "ASIA{16U}", "GitHub": "ghp_{36}", "GitHub, fine-grained": "github_pat_{22}_{59}", "GitLab": "glpat-{20}",
    "Slack": "xoxb-123456789012-123456789012-{24}", "Stripe": "sk_live_{24}", "OpenAI": "sk-proj-{48}", "Anthropic": "sk-ant-api03-{60}",
    "Google": "AIzaSy{33}", "Google, OAuth": "GOCSPX-{28}", "Hugging Face": "hf_{34}", "PyPI": "pypi-AgEIcHlwaS5vcmc{70}", "npm": "npm_{36}",
    "SendGrid": "SG.{22}.{43}", "Twilio": "SK{32h}", "DigitalOcean": "dop_v1_{64h}", "Databricks": "dapi{32h}", "Shopify": "shpat_{32h}",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx{20}.{43}", "Mailchimp": "{32h}-us12", "Vault": "hvs.{24}", "Telegram": "1234567890:{35}",
    "Heroku": "HRKU-{8h}-{4h}-{4h}-{4h}-{12h}", "Doppler": "dp.pt.{43}", "a service that nobody knows": "acme_live_{32}", "Azure": "AccountKey={86}==", "PEM": "-----BEGIN PRIVATE KEY-----MIIEvQ{40}",
}  # fmt: skip


def token(form):
    alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

    def run(count, kind):
        if kind == "h":
            return secrets.token_hex(count)[:count]
        letters = alphabet.upper() if kind == "U" else alphabet
        # Letters and digits by turns: chance must not make one that no pattern could know.
        return "".join(secrets.choice(letters if at % 2 else "23456789") for at in range(count))

    import re

    return re.sub(r"\{(\d+)([hU]?)\}", lambda found: run(int(found[1]), found[2]), form)


def everything(directory):
    """Yield every row of every table, and every file with its name, of a store."""
    with duckdb.connect(str(directory / "catalog.duckdb"), read_only=True) as connection:
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"').fetchall():
                yield table, " ".join(each.decode("latin-1") if isinstance(each, bytes) else str(each) for each in row)
    for file in directory.rglob("*"):
        if file.is_file():
            yield f"file {file.name}", file.name + file.read_bytes().decode("latin-1")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Materialize one asset per case in one process; return the secrets by case, the store, what was printed, and a pack."""
    folder = tmp_path_factory.mktemp("secrets")
    given = {}
    names = []
    for name, body in BODIES.items():
        given[name] = "Zq7" + secrets.token_hex(12)
        names.append((name, body))
    for name, form in FORMS.items():
        for how, body in (
            ("global", "conn = {S!r}\ndef f(): return len(conn)"),
            ("constant", "def use(a): return 1\ndef f(): return use({S!r})"),
        ):
            given[f"{name}, {how}"] = token(form)
            names.append((f"{name}, {how}", body))
    for at, (name, body) in enumerate(names):
        secret = given[name]
        text = body.replace("{S!r}", repr(secret)).replace("{S}", secret).replace("{R!r}", repr(secret[::-1]))
        (folder / f"m{at}.py").write_text(
            "import stepwell\n"
            + text.replace("{{", "{").replace("}}", "}").replace("def f(", f"@stepwell.asset(name='a{at}')\ndef f(")
        )
    (folder / "main.py").write_text(
        textwrap.dedent(
            """
            import importlib, sys, stepwell
            mine = [importlib.import_module(f"m{at}").f for at in range(int(sys.argv[1]))]
            result = stepwell.materialize(mine, store="store", raise_on_error=False)
            for step in result.steps:
                print(step.key, step.status, step.error.message if step.error else "")
            """
        )
    )
    env = {
        **os.environ,
        "STEPWELL_KEY_FILE": str(folder / "key"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        "HOME": str(folder),
    }
    done = subprocess.run(
        [sys.executable, "main.py", str(len(names))], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    failing = {f"a{at}" for at, (name, _) in enumerate(names) if "fail" in name or "message" in name}
    assert {key for key, line in lines.items() if not line.startswith("executed")} == failing
    keys = [key for key in lines if key not in failing]
    packed = subprocess.run(
        [sys.executable, "-m", "stepwell.batch", "pack", *keys, "out.zip", "--store", "store"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert packed.returncode == 0, packed.stderr
    return given, folder / "store", done.stdout + done.stderr, folder / "out.zip"


@pytest.mark.attack(
    "The code that a step reaches contains a secret: in a global, a constant, a default, a comment or an address, or as a token of a service.",
    "The secret is in no table, no value file and no pack: text that is named, used or formed like a secret is removed from stored code and values.",
)
def test_no_secret_of_code_is_kept(kept):
    given, store, printed, _ = kept
    found = {(name, place.split(" ")[0]) for place, text in everything(store) for name, secret in given.items() if secret in text}
    assert found == set()
    assert [name for name, secret in given.items() if secret in printed] == []


@pytest.mark.attack("Another person reads a pack.", "The pack contains no secret that was recognised in the code.")
def test_no_secret_of_code_is_in_a_pack(kept):
    given, _, _, pack = kept
    with zipfile.ZipFile(pack) as archive:
        text = "\n".join(archive.read(name).decode("latin-1") for name in archive.namelist())
    assert [name for name, secret in given.items() if secret in text] == []
    assert "<hidden>" in text


def test_a_changed_secret_makes_stale_and_is_not_shown(tmp_path):
    space = {
        "stepwell": stepwell,
        "__name__": "__main__",
        "API_KEY": "Zq7-first-one",
        "conn": token("ghp_{36}"),
        "table": {token("hf_{34}"): 1},
    }
    import linecache

    text = "@stepwell.asset\ndef f():\n    return len(API_KEY), len(conn), len(table)\n"
    linecache.cache["/tmp/ipykernel_1/secrets.py"] = (
        len(text),
        None,
        text.splitlines(keepends=True),
        "/tmp/ipykernel_1/secrets.py",
    )
    exec(compile(text, "/tmp/ipykernel_1/secrets.py", "exec"), space)
    session = Session()
    session.namespace = space
    session.use(tmp_path / "store")
    session.registry.register(space["f"])
    session.materialize()
    before = [space["API_KEY"], space["conn"], *space["table"]]
    space.update(API_KEY="Zq7-other-one", conn=token("ghp_{36}"), table={token("hf_{34}"): 1})
    told = explain(session, "f")
    shown = (
        str(told) + json.dumps(told.as_dict()) + "\n".join(node.code + node.reason for node in session.inspect().lineage().nodes)
    )
    assert told.state == "stale"
    assert "API_KEY changed" in shown
    assert [each for each in [*before, space["API_KEY"], space["conn"], *space["table"]] if each in shown] == []
    session.store.close()


def test_a_returned_secret_is_in_the_value_and_not_in_what_is_listed(tmp_path):
    secret = token("ghp_{36}")

    @stepwell.asset
    def key_of_service():
        return secret

    @stepwell.asset
    def other():
        return "plain text"

    result = stepwell.materialize([key_of_service, other], store=tmp_path / "store")
    assert result.value("key_of_service") == secret
    made = {item.key: item.value for step in result.steps for item in step.materializations}
    assert made["key_of_service"].summary == "40 characters"
    assert made["other"].summary == "'plain text'"
