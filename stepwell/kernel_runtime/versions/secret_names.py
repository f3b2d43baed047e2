"""Which names are those of secrets: ``API_TOKEN``, ``db_password``, ``client-secret``; not ``AUTHOR``, ``N_TOKENS``, ``tokenizer``.

Names are taken word by word (``apiToken`` and ``API_TOKEN`` are ``api token``). A word that counts or measures makes a name one of numbers:
``max_tokens``, ``password_length``. Tokens in the plural are those of texts, unless a word says whose they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

_IDENTIFIER = re.compile(r"[^\W_][\w-]*|_[\w-]+")
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[^\W\d_a-zA-Z]+")
_SECRETS = frozenset({
    "secret", "secrets", "password", "passwords", "passwd", "passwds", "passphrase", "passphrases", "passcode", "passw", "pwd", "credential", "credentials",
    "creds", "bearer", "cookie", "cookies", "auth", "oauth", "authorization", "authentication", "jwt", "token", "apikey", "apikeys", "accesskey",
    "privatekey", "secretkey", "authtoken", "apitoken", "accesstoken",
})  # fmt: skip
# What stands last in the name of something about a secret: TOKEN_URL, password_field.
_DESCRIBING = frozenset({
    "re", "regex", "regexp", "pattern", "name", "names", "url", "uri", "endpoint", "type", "types", "file", "path", "dir", "folder", "field", "fields", "label",
    "error", "exception", "required", "policy", "expiry", "expires", "ttl", "timeout", "id", "ids", "index", "enabled",
})  # fmt: skip
# Also where they are written together with what they are of: PGPASSWORD, mytoken.
_ENDINGS = ("password", "passwords", "passwd", "passphrase", "token", "secret", "secrets", "credentials", "apikey")
_OF_KEYS = frozenset({"api", "private", "access", "secret", "auth", "signing", "encryption"})
_OF_TOKENS = frozenset({"api", "auth", "oauth", "access", "refresh", "bearer", "secret", "session", "login"})
_COUNTS = frozenset({
    "n", "num", "number", "count", "counts", "counter", "max", "min", "total", "len", "length", "lengths", "size", "limit", "budget", "per", "rate", "avg",
    "mean", "sum", "usage", "price", "cost", "window", "ratio", "vocab",
})  # fmt: skip


_LOGINS = frozenset(
    {
        "login",
        "signin",
        "authenticate",
        "logon",
        "httpbasicauth",
        "httpdigestauth",
        "basicauth",
        "basic_auth",
        "sign_in",
        "log_in",
        "set_password",
    }
)
_CLIENTS = frozenset({
    "connect", "connection", "client", "auth", "session", "engine", "authorize", "bot", "api", "login", "account", "credential", "credentials", "bearer", "init",
})  # fmt: skip


_WEAK = frozenset({"token", "auth", "cookie", "cookies", "authorization", "authentication", "oauth", "bearer"})


@lru_cache(maxsize=8192)
def is_weak(name: str) -> bool:
    """Tell whether a secret's name may also be that of something else: a token of a text, a cookie, but not an ``API_TOKEN``."""
    words = {word.lower() for word in _WORD.findall(name)}
    strong = any(
        (word in _SECRETS and word not in _WEAK) or (word.endswith(_ENDINGS) and not word.endswith("token"))
        for word in words
    )
    return not (name.isupper() or strong or words & (_OF_KEYS | _OF_TOKENS) - {"auth", "oauth", "bearer"})


@lru_cache(maxsize=8192)
def uses_secret(called: str) -> Literal["", "login", "client"]:
    """Tell whether what is called takes a secret: ``login`` gets a name and a password, a ``client`` perhaps a key among other things."""
    if called.lower() in _LOGINS:
        return "login"
    words = {word.lower() for word in _WORD.findall(called)}
    return (
        "client"
        if not words.isdisjoint(_CLIENTS)
        or not words.isdisjoint({"login", "signin", "authenticate"})
        or names_secret(called)
        else ""
    )


@lru_cache(maxsize=8192)
def names_secret(text: str) -> bool:
    """Tell whether a name, or one of the names in a path such as ``helper -> config['token']``, is that of a secret."""
    return any(_is_secret(found) for found in _IDENTIFIER.findall(text))


def _is_secret(identifier: str) -> bool:
    words = [word.lower() for word in _WORD.findall(identifier)]
    if words and words[-1] in _DESCRIBING:
        return False
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        if word in ("key", "keys") and before in _OF_KEYS:
            return True
        if word == "tokens" and before in _OF_TOKENS:
            return True
        if (word in _SECRETS or word.endswith(_ENDINGS)) and _COUNTS.isdisjoint(words):
            return True
    return False
