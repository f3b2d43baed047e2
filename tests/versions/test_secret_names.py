"""Which names are those of secrets, in a table."""

from pathlib import Path

import pytest

from stepwell.kernel_runtime.versions.secrets import HIDDEN, hidden_message, hidden_source, looks_secret

SECRET = """
TOKEN token API_TOKEN api_token apiToken APIToken auth_token github_token access_tokens refresh_tokens slackToken _token token_
SECRET secret client_secret client-secret CLIENT_SECRETS secretKey AWS_SECRET_ACCESS_KEY
PASSWORD db_password dbPassword passwords passwd PGPASSWD PGPASSWORD mytoken passphrase pwd DB_PWD pwd_hash
API_KEY apikey apiKey x-api-key OPENAI_API_KEYS private_key accessKey signing_key
EXCHANGE_RATE_API_KEY PRICE_API_KEY MAX_API_KEY EXCHANGE_RATE_API_KEYS usage_api_tokens_file_api_key
credentials creds AUTH auth oauth basic_auth Authorization bearer cookie COOKIES jwt
helper->config['token'] .api_token (password=) target->max_len->TOKEN
""".split()
PLAIN = """
AUTHOR author AUTHORS co_authors AUTHORITY authored N_TOKENS n_tokens MAX_TOKENS max_tokens num_tokens token_count tokens_per_batch
tokens tokenizer tokenize tokenized TOKENIZERS_PARALLELISM password_length min_password_length secret_count
api_key_count apiKeyCount API_KEY_LIMIT max_api_keys num_api_keys nApiKeys private_key_size SECRET_KEY_LENGTH api_keys_total
max_api_tokens n_access_tokens api_token_count session_tokens_limit total_refresh_tokens
secretary secretariat passwordless compass bypass passport KEY key keys keyboard monkey primary_key sort_key cookiecutter
""".split()


@pytest.mark.parametrize("name", SECRET)
def test_the_name_of_a_secret(name):
    assert looks_secret(name)


@pytest.mark.parametrize("name", PLAIN)
def test_another_name(name):
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("source", "hides"),
    [
        ("AUTHOR = 'Ann'", False),
        ("N_TOKENS = 4096", False),
        ("MAX_TOKENS: int = 4096", False),
        ("config = {'max_tokens': 4096, 'author': 'Ann'}", False),
        ("API_TOKEN = 'Ann'", True),
        ("config = {'token': 4096}", True),
        ("connect(password='Ann')", True),
        ("def f(api_key='Ann'): pass", True),
        ("headers['x-api-key'] = 'Ann'", True),
        ("text = 'token=Ann'", True),
        ("text = 'max_tokens=5'", False),
        ("if token == 'Ann': pass", True),
    ],
)
def test_what_is_hidden_in_source_and_in_messages(source, hides):
    assert (HIDDEN in hidden_source(source)) is hides
    assert ("Ann" in hidden_source(source)) is ("Ann" in source and not hides)
    # No syntax tree there: quoted values only.
    if "=" in source and "'Ann'" in source and "{" not in source and "x-api" not in source:
        assert ("'Ann'" in hidden_message(f"  line 1\n    {source}\n  boom")) is not hides


def test_code_of_libraries_stays_as_it_is():
    """In the code of libraries, lexers and clients with passwords among them, hardly a line has what looks like a secret."""
    import asyncio
    import http
    import json
    import tokenize

    files = [path for module in (asyncio, http, json) for path in Path(module.__file__).parent.rglob("*.py")]
    files += [
        Path(tokenize.__file__),
        *(Path(json.__file__).parents[1] / name for name in ("smtplib.py", "secrets.py", "netrc.py", "hashlib.py")),
    ]
    changed, lines = [], 0
    for path in files:
        text = path.read_text(encoding="utf-8")
        after = set(hidden_source(text).splitlines())
        lines += text.count("\n")
        changed += [(path.name, line) for line in text.splitlines() if line not in after]
    assert lines > 15_000
    # What is left are cookies and grammars of tokens in documentation: one line in a thousand.
    assert len(changed) < lines / 750, changed
