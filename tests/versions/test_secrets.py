"""Secrets in values and in source: used like any text, kept by name, hidden where source is kept."""

import pickle
from itertools import product

import pytest
from edited_cells import run_cells

import stepwell
from stepwell.kernel_runtime.errors import SecretNotSetError
from stepwell.kernel_runtime.records.materializations import CodeVersion
from stepwell.kernel_runtime.session.reasons import explain
from stepwell.kernel_runtime.versions.data import data_version, hides
from stepwell.kernel_runtime.versions.secret_forms import CLIENTS, LOGINS
from stepwell.kernel_runtime.versions.secrets import Environment, hidden_message, hidden_source, is_kept_back
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
    assert Environment().has("['x rather-long-value']")
    assert not Environment().has("short")


class Holder:
    """An instance of a class of the notebook; the test sets the module."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


CONTAINERS = {
    "the text itself": lambda text: text,
    "bytes": lambda text: text.encode(),
    "a list": lambda text: [1, text],
    "a tuple of bytes": lambda text: (text.encode(),),
    "a set": lambda text: {text},
    "a value of a dict": lambda text: {"place": text},
    "a nested list": lambda text: [{"rows": [(text, 1)]}],
    "an attribute": lambda text: Holder(place=text),
    "a list in an attribute": lambda text: Holder(places=[text]),
}


@pytest.mark.parametrize("text", ["zq4w", "hunter-zq", "pässwört", "zq\\'\"4w--"])
@pytest.mark.parametrize("inside", CONTAINERS.values(), ids=CONTAINERS)
def test_a_container_is_kept_back_for_a_long_value_of_the_environment(monkeypatch, inside, text):
    monkeypatch.setattr(Holder, "__module__", "__main__")
    assert not is_kept_back("x", inside(text))
    assert not hides("x", inside(text))
    monkeypatch.setenv("SOME_NAME", text)
    expected = len(text) >= 8 or inside(text) in (text, text.encode())
    assert is_kept_back("x", inside(text)) == expected
    assert hides("x", inside(text)) == expected


def test_names_and_keys_are_no_values_of_the_environment(monkeypatch):
    monkeypatch.setattr(Holder, "__module__", "__main__")
    monkeypatch.setenv("MODE", "training")
    for value in (Holder(training=1), {"training": 1}, {("training", 2): 1}):
        assert not is_kept_back("x", value)
        assert not hides("x", value)
    assert is_kept_back("x", Holder(api_key="hush"))
    assert hides("x", Holder(api_key="hush"))


@pytest.mark.parametrize(
    "value", ["zq4w", b"zq4w", ["rather-long-'value'"], {"a": (b"rather-long-'value'",)}, "rather-long-'value'", 4711]
)
def test_a_global_with_a_value_of_the_environment_is_not_shown(monkeypatch, value):
    def shown():
        space = run_cells(f"HELD = {value!r}\n", "def target(): return HELD\n")
        return [part.text for part in full(space, key_of("mine")).parts if part.path == "target -> HELD"]

    assert shown() == [repr(value)]
    for text in ("zq4w", "rather-long-'value'", "4711"):
        monkeypatch.setenv(f"NAME_{len(text)}{text[-1].isdigit()}", text)
    assert shown() == ["<hidden>"]


def test_the_code_of_a_lambda_hides_values_of_the_environment_like_a_function(monkeypatch):
    def function():
        return "rather-long-value"

    def members(found):
        return found in ("rather-long-value", "b")

    code = (function, members, lambda: "rather-long-value", lambda found: found in ("rather-long-value", "b"))
    assert [hides("f", each) for each in code] == [False] * 4
    monkeypatch.setenv("SOME_NAME", "rather-long-value")
    assert [hides("f", each) for each in code] == [True] * 4


CALLS = (
    "{name}({secret})",
    "made = lib.{name}('host', {secret}, timeout=10)",
    "def f(a):\n    return [\n        {name}(\n            {secret},\n        )\n    ]",
)
LITERALS = (
    ("'", "x7Kp2Q9wZt"),
    ('"', "x7Kp2Q9wZt"),
    ("b'", 'q1"w2#e3$r4'),
    ("'''", "CorrectHorse-BatteryStaple_xyzQWJK"),
    ("'", "a1\\'b2\\'c3"),
)


@pytest.mark.parametrize("word", sorted(CLIENTS | LOGINS))
def test_an_argument_that_looks_generated_is_hidden_in_a_call_of_a_client(word):
    names = [word, word.upper(), word.capitalize()]
    names += [f"open_{word}", f"make{word.capitalize()}"] if word in CLIENTS else []
    for name, call, (quote, secret) in product(names, CALLS, LITERALS):
        literal = quote + secret + quote.removeprefix("b")
        before = "kept = 'first'  # don't\n" + call.format(name=name, secret=literal)
        assert hidden_source(before) == before.replace(literal, "'<hidden>'")


@pytest.mark.parametrize("name", [spelled for name in sorted(LOGINS) for spelled in (name, name.upper(), name.capitalize())])
def test_the_password_of_a_login_is_hidden(name):
    assert hidden_source(f"s.{name}('bob', 'hush')") == f"s.{name}('bob', '<hidden>')"
    assert hidden_source(f"{name} (\"bob\", 'hush')") == f"{name} (\"bob\", '<hidden>')"


@pytest.mark.parametrize(
    "source",
    ["c = Client('localhost', 'utf-8')", "class A:\n    def __init__(self, kind='created_at'): pass", "assigning('bob', 'hush')",
     "x = 'x7Kp2Q9wZt'", "both('a b', 'x7Kp2Q9wZt')", "super().__init__('two words 1a2b3c4d')"],
)  # fmt: skip
def test_other_calls_are_as_they_were(source):
    assert hidden_source(source) == source


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
