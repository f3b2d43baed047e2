"""Secrets in values and in source: used like any text, kept by name, hidden where source is kept."""

import pickle

import pytest
from edited_cells import run_cells

import stepwell
from stepwell.kernel_runtime.errors import SecretNotSetError
from stepwell.kernel_runtime.records.materializations import CodeVersion
from stepwell.kernel_runtime.session.reasons import explain
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.secrets import Environment, hidden_message, hidden_source
from stepwell.kernel_runtime.versions.walk import CodeWalk


def key_of(name):
    from hashlib import blake2b

    return lambda data: blake2b(data, key=name.encode(), digest_size=16).hexdigest()


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("API_TOKEN", "qwertz-1")
    return lambda text: monkeypatch.setenv("API_TOKEN", text)


def test_a_secret_is_used_like_a_text_and_shows_its_name(token):
    found = stepwell.secret("API_TOKEN")
    assert f"Bearer {found}" == "Bearer qwertz-1"
    assert isinstance(found, str)
    assert found + "x" == "qwertz-1x"
    assert repr([found]) == "[secret('API_TOKEN')]"
    assert b"qwertz" not in pickle.dumps({"token": found})
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_secret_that_is_not_set_says_how_to_set_it(monkeypatch):
    monkeypatch.delenv("API_TOKEN", raising=False)
    with pytest.raises(SecretNotSetError, match="getpass"):
        stepwell.secret("API_TOKEN")


@pytest.mark.parametrize("held", ["TOKEN", "{'token': TOKEN}", "[TOKEN, 1]"])
def test_it_does_not_count_unless_asked(token, held):
    def version(text, **options):
        token(text)
        space = run_cells("def target(): return HELD\n")
        space["TOKEN"] = stepwell.secret("API_TOKEN", **options)
        exec(f"HELD = {held}", space)
        return CodeWalk(namespace=space, keyed=key_of("mine")).of(space["target"], path="target").digest

    assert version("one") == version("two")
    assert version("one", counts=True) != version("two", counts=True)
    assert version("one", counts=True) == version("one", counts=True)


def test_what_it_reads_inside_a_step_counts_only_if_asked(token, tmp_path):
    @stepwell.asset
    def quiet():
        return len(stepwell.secret("API_TOKEN"))

    @stepwell.asset
    def strict():
        return len(stepwell.secret("API_TOKEN", counts=True))

    def statuses():
        return {step.key: step.status for step in stepwell.materialize([quiet, strict], store=tmp_path / "kept").steps}

    statuses()
    assert statuses() == {"quiet": "reused", "strict": "reused"}
    token("other-1")
    assert statuses() == {"quiet": "reused", "strict": "executed"}


def test_the_data_version_of_a_value_with_a_secret_knows_only_the_name(token):
    first = data_version({"token": stepwell.secret("API_TOKEN")})
    token("another")
    assert data_version({"token": stepwell.secret("API_TOKEN")}) == first


@pytest.mark.parametrize(
    "line",
    [
        "API_KEY = 'hush'", 'password: str = "hush"', "client = Client(host='h', password='hush')", "options = {'secret': 'hush', 'n': 1}",
        "def f(a, token='hush'): pass", "def f(a, *, token='hush'): pass", "os.environ['API_TOKEN'] = 'hush'", "self.auth = ('u', 'hush')",
        "url = 'postgres://user:hush@host/db'", "url = 'https://host?token=hush'", "headers = {'Authorization': f'Bearer hush{n}'}",
        "ok = token == 'hush'", "key = 'sk-hush-0123456789'", "# password = 'hush'", "%login\npassword = 'hush'", "a, api_key = 1, 'hush'",
        "secret_pin = b'hush'", "with_password('x', passphrase='''a\nhush''')", "if (token := 'hush'): pass",
    ],
)  # fmt: skip
def test_literal_secrets_are_hidden_in_source(line):
    before = f"first = 'kept'\n{line}\nlast = 'kept too'\n"
    after = hidden_source(before)
    assert "hush" not in after
    assert "first = 'kept'\n" in after
    assert after.endswith("last = 'kept too'\n")


@pytest.mark.parametrize(
    "line", ["name = 'x'", "def author(a='b'): pass", "n = 1  # ok", "text = 'a:b@c'", "rows = read('tokens.csv')"]
)
def test_other_source_is_as_it_was(line):
    assert hidden_source(line) == line


def test_values_of_the_environment_are_hidden_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("SOME_NAME", "rather-long-value")
    assert hidden_source("x = 'rather-long-value'") == "x = '<hidden>'"
    assert hidden_message("no access for rather-long-value") == "no access for <hidden>"
    assert Environment().has("rather-long-value", "'rather-long-value'")
    assert Environment().has(["x rather-long-value"], "['x rather-long-value']")
    assert not Environment().has("short", "'short'")


def full(space, keyed):
    walk = CodeWalk(namespace=space, keyed=keyed)
    found = walk.of(space["target"], path="target")
    return CodeVersion(found.digest, walk.parts(space["target"], path="target"))


def test_digests_of_parts_cannot_be_guessed_without_the_key():
    space = run_cells("PIN = 1234\n", "def target(): return PIN\n")
    mine, again, other = (full(space, key_of(name)) for name in ("mine", "mine", "other"))
    assert mine == again
    assert mine.digest == other.digest
    assert not {part.digest for part in mine.parts if part.kind != "package"} & {part.digest for part in other.parts}


def test_a_code_version_does_not_give_away_a_value_that_is_named_like_a_secret():
    def digest(value, key):
        space = run_cells(f"PIN_SECRET = {value}\n", "def target(): return PIN_SECRET\n")
        return CodeWalk(namespace=space, keyed=key and key_of(key)).of(space["target"], path="target").digest

    assert digest(1, "mine") == digest(1, "mine") != digest(2, "mine")
    assert digest(1, "mine") != digest(1, "other")
    assert digest(1, None) == digest(1, None) != digest(2, None)


def test_parts_under_another_users_key_are_not_taken_for_changed():
    cells = "A = 1\nB = 2\n", "def target(): return A, B, PASSWORD\n"
    space = run_cells("PASSWORD = 'x'\n", *cells)
    before = full(space, key_of("mine"))
    space["B"] = 3
    (change,) = explain(before, full(space, key_of("other")))
    assert change.path == "target -> B"
