"""Names of secrets (``API_TOKEN``), and formats of secrets: tokens, keys, addresses with a password.

*Names* are split into words (``apiToken`` and ``API_TOKEN`` are ``api token``). ``API_TOKEN``, ``db_password`` and ``client-secret`` are
names of secrets, ``AUTHOR`` and ``tokenizer`` are not. The words ``key``, ``keys`` and ``tokens`` mean secrets only after a word such as ``api``.
A name with a word for a count or measure is the name of a number: ``max_tokens``, ``password_length``. But in a name with ``key``, only the last
word may be the word for the count: ``api_key_count``. In a name with ``keys`` or ``tokens``, it may also be the first word: ``max_api_keys``.
``EXCHANGE_RATE_API_KEY`` is the name of a secret, because ``RATE`` is not the last word.

*Formats* are recognised with the patterns of detect-secrets, and with the prefixes of tokens of services that detect-secrets does not know. The
import of detect-secrets takes a third of a second. So it is imported only for a text that contains a long run of mixed letters and digits, as
every token and few other texts do.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Literal

_IDENTIFIER = re.compile(r"[^\W_][\w-]*|_[\w-]+")
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[^\W\d_a-zA-Z]+")
_SECRETS = frozenset({
    "secret", "secrets", "password", "passwords", "passwd", "passwds", "passphrase", "passphrases", "passcode", "passw", "pwd", "credential", "credentials",
    "creds", "bearer", "cookie", "cookies", "auth", "oauth", "authorization", "authentication", "jwt", "token", "apikey", "apikeys", "accesskey",
    "privatekey", "secretkey", "authtoken", "apitoken", "accesstoken",
})  # fmt: skip
# A name that ends with one of these words is the name of something other than the secret: TOKEN_URL, password_field.
_DESCRIBING = frozenset({
    "re", "regex", "regexp", "pattern", "name", "names", "url", "uri", "endpoint", "type", "types", "file", "path", "dir", "folder", "field", "fields", "label",
    "error", "exception", "required", "policy", "expiry", "expires", "ttl", "timeout", "id", "ids", "index", "enabled",
})  # fmt: skip
# These words are also recognised at the end of a longer word: PGPASSWORD, mytoken.
_ENDINGS = ("password", "passwords", "passwd", "passphrase", "token", "secret", "secrets", "credentials", "apikey")
_OF_KEYS = frozenset({"api", "private", "access", "secret", "auth", "signing", "encryption"})
_OF_TOKENS = frozenset({"api", "auth", "oauth", "access", "refresh", "bearer", "secret", "session", "login"})
_COUNTS = frozenset({
    "n", "num", "number", "count", "counts", "counter", "max", "min", "total", "len", "length", "lengths", "size", "limit", "budget", "per", "rate", "avg",
    "mean", "sum", "usage", "price", "cost", "window", "ratio", "vocab",
})  # fmt: skip


LOGINS = frozenset(
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
CLIENTS = frozenset({
    "connect", "connection", "client", "auth", "session", "engine", "authorize", "bot", "api", "login", "account", "credential", "credentials", "bearer", "init",
})  # fmt: skip


_WEAK = frozenset({"token", "auth", "cookie", "cookies", "authorization", "authentication", "oauth", "bearer"})


@lru_cache(maxsize=8192)
def is_weak(name: str) -> bool:
    """Return True if the name of a secret may also have another meaning: ``token`` and ``cookie`` may, ``API_TOKEN`` may not."""
    words = {word.lower() for word in _WORD.findall(name)}
    strong = any(
        (word in _SECRETS and word not in _WEAK) or (word.endswith(_ENDINGS) and not word.endswith("token")) for word in words
    )
    return not (name.isupper() or strong or words & (_OF_KEYS | _OF_TOKENS) - {"auth", "oauth", "bearer"})


@lru_cache(maxsize=8192)
def uses_secret(called: str) -> Literal["", "login", "client"]:
    """Return how a function uses the secrets that are passed to it, judging from its name.

    Parameters
    ----------
    called
        The name of the function.

    Returns
    -------
    str
        ``login`` if the arguments are a user's name and a password, ``client`` if one of the arguments may be a key, else empty.
    """
    if called.lower() in LOGINS:
        return "login"
    words = {word.lower() for word in _WORD.findall(called)}
    return (
        "client"
        if not words.isdisjoint(CLIENTS) or not words.isdisjoint({"login", "signin", "authenticate"}) or names_secret(called)
        else ""
    )


@lru_cache(maxsize=8192)
def names_secret(text: str) -> bool:
    """Return True if a text contains the name of a secret.

    Parameters
    ----------
    text
        A name, or a text with names such as ``helper -> config['token']``.
    """
    return any(_is_secret(identifier) for identifier in _IDENTIFIER.findall(text))


def _is_secret(identifier: str) -> bool:
    words = [word.lower() for word in _WORD.findall(identifier)]
    if words and words[-1] in _DESCRIBING:
        return False
    for position, word in enumerate(words):
        before = words[position - 1] if position else ""
        keys = (word in ("key", "keys") and before in _OF_KEYS) or (word == "tokens" and before in _OF_TOKENS)
        if keys and words[-1] not in _COUNTS and (word == "key" or words[0] not in _COUNTS):
            return True
        if (word in _SECRETS or word.endswith(_ENDINGS)) and _COUNTS.isdisjoint(words):
            return True
    return False


LEAST_GENERATED = 8
"""A text that looks generated has at least this number of characters."""
_RUN = 16
_APART = bytes(at if at < 128 and chr(at).isalnum() else 32 for at in range(256))
_ALIKE = bytes(32 if at == 32 else 97 for at in _APART)
_CHARACTERS = r"[\w.~+/=%-]"
_PREFIXES = (
    r"A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA|AIza|ya29\.|GOCSPX-|1//0|"  # Amazon, Google
    r"gh[oprsu]_|github_pat_|gl[a-z]{2,6}-|GR1348941|ATATT3|ATCTT3|ATBB|BBDC-|"  # GitHub, GitLab, Atlassian
    r"hf_|api_org_|sk-|sess-|gsk_|r8_|xai-|pplx-|tvly-|nvapi-|jina_|co_|wandb_v1_|lsv2_|pcsk_|"  # models and their tools
    r"[sr]k_(?:live|test)_|whsec_|sq0[a-z]{3}-|EAAA|access_token\$|"  # payments
    r"xox[a-z]-|xapp-|xoxe\.|"  # Slack
    r"pypi-|npm_|dckr_(?:pat|oat)_|rubygems_|cio|oy2|"  # registries
    r"do[opr]_v1_|dapi|dkea|dose|shp(?:at|ca|pa|ss)_|glsa_|glc_|eyJrIjoi|PMAK-|hv[sbr]\.|AGE-SECRET-KEY-|LTAI|NRAK-|NRII-|NRAL-|"
    r"lin_api_|ntn_|secret_|sbp_|sntrys_|sntryu_|figd_|figo_|rdme_|EZ[AT]K|pscale_(?:pw|tkn|oauth)_|pul-|tfp_|fo1_|FlyV1|HRKU-|key-|SG\.|"
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.|tk-us-|dt0[a-z]\d{2}\.|pat[A-Za-z0-9]{14}\.|PRIVATE-TOKEN|DefaultEndpointsProtocol"
)
_PREFIXED = re.compile(rf"(?<![A-Za-z0-9])(?:{_PREFIXES}){_CHARACTERS}{{12,}}")
_SURELY = re.compile(r"(?<![A-Za-z0-9])(?:sk[-_]|gh[oprsu]_|github_pat_|xox[a-z]-|HRKU-)[\w-]{10,}")
_LIKE_A_TOKEN = re.compile(
    r"(?<![\w.-])(?P<prefix>[A-Za-z]{2,10})(?:[-_][A-Za-z0-9]{1,8}){0,3}[-_](?P<run>[A-Za-z0-9]{24,})(?![A-Za-z0-9])"
)
_JWT = re.compile(r"eyJ[A-Za-z0-9_=-]{8,}\.[A-Za-z0-9_=.+/-]{8,}")
_NOT_OF_TOKENS = frozenset({
    "sha", "md", "blake", "git", "rev", "ref", "commit", "hash", "checksum", "digest", "etag", "uuid", "guid", "id", "oid", "cid", "run", "img", "file",
})  # fmt: skip
"""Prefixes of digests and identifiers, which are not secrets."""
_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_URL = re.compile(r"://[^/\s:@'\"<>]*:(?P<password>[^/\s@'\"]+)@")
_SIGNED_ADDRESS = re.compile(
    r"[?&;](?:amp;)?(?:sig|signature|x-amz-signature|x-amz-security-token|x-goog-signature)=(?P<value>[^&;\s'\"<>]{16,})",
    re.IGNORECASE,
)
"""A signature in a web address. It grants access without a password."""
_LOGIN = re.compile(r"(?<![\w-])(?:-u|--user)[ =]['\"]?[^\s:'\"]+:(?P<value>[^\s'\"]+)")
_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File")
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)|PuTTY-User-Key-File.*",
    re.DOTALL,
)
PLACEHOLDER = "\0"
"""Replaces the computed parts of an f-string or concatenation. So ``f"https://bob:{password}@host"`` contains no literal password."""


def token_spans(text: str) -> Iterator[tuple[int, int]]:
    """Recognise secrets in a text by their format, and yield the range of each."""
    if "://" in text:
        for pattern, group in ((_URL, "password"), (_SIGNED_ADDRESS, "value"), (_LOGIN, "value")):
            for match in pattern.finditer(text):
                if is_literal(match[group]):
                    yield match.span(group)
    if "-----BEGIN" in text or "PuTTY" in text:
        yield from (match.span() for match in _KEY_BLOCK.finditer(text))
    yield from _matches((_SURELY,), text, _is_mixed)
    if not has_run(text):
        return
    yield from _matches((_PREFIXED, _JWT), text, has_run)
    for match in _LIKE_A_TOKEN.finditer(text):
        run = match["run"]
        if match["prefix"].lower() not in _NOT_OF_TOKENS and not _HEX.fullmatch(run) and alternations(run) >= 6:
            yield _whole_word(text, *match.span())
    yield from _matches(_patterns(), text, _is_mixed)


def _matches(patterns: Iterable[re.Pattern[str]], text: str, accepted: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    for pattern in patterns:
        for match in pattern.finditer(text):
            if accepted(match[0]):
                yield _whole_word(text, *match.span())


def has_run(text: str) -> bool:
    """Return True if a text contains a run of at least 16 mixed letters and digits, as all tokens and few other texts do."""
    if len(text) < _RUN:
        return False
    # All source code is checked in this way, and a regular expression would take ten times as long.
    encoded = text.encode("utf-8", "replace")
    if b"a" * _RUN not in encoded.translate(_ALIKE):
        return False
    runs = [run for run in encoded.translate(_APART).split() if len(run) >= _RUN]
    return bool(runs) and any(alternations(run.decode()) >= 2 for run in runs)


def alternations(run: str) -> int:
    """Return how many times a letter and a digit stand next to each other in a run of characters."""
    return sum(a.isdigit() is not b.isdigit() and a.isalnum() and b.isalnum() for a, b in pairwise(run))


def looks_generated(text: str) -> bool:
    """Return True if a text may be a generated password or key: one word of mixed characters with a higher entropy than natural words.

    Many identifiers look like this, too. So call this function only if a name or a use suggests that the text is a secret.
    """
    if not LEAST_GENERATED <= len(text) <= 4096:
        return False
    has_digit = any(map(str.isdigit, text))
    if (
        (not has_digit and len(text) < 16)
        or any(map(str.isspace, text))
        or text.startswith(("/", "./", "~", "http://", "https://", "--"))
    ):
        return False
    kinds = sum((has_digit, any(map(str.islower, text)), any(map(str.isupper, text))))
    others = sum(not (character.isalnum() or character in "_-. ") for character in text)
    return (kinds >= 2 and has_digit and (alternations(text) >= 2 or others > 0) and entropy(text) >= 2.5) or (
        len(text) >= 16 and kinds >= 2 and entropy(text) >= 4.0
    )


def entropy(text: str) -> float:
    """Return the Shannon entropy of the characters of a text, in bits per character."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values())


def is_literal(part: str) -> bool:
    """Return True if a text may be an actual value, such as a password.

    The result is False for an empty text and for a placeholder such as ``{password}``, ``%s``, ``$PASSWORD``, ``<password>`` or ``***``.
    """
    part = part.replace(PLACEHOLDER, "")
    return bool(part) and not _COMPUTED.fullmatch(part)


_COMPUTED = re.compile(r"\{[^{}]*\}|%\(?\w*\)?[sdr]|\$\{?\w+\}?|<[^<>]*>|[*x.…]+|\[[^\]]*\]|:\w+|\?", re.IGNORECASE)


def _is_mixed(text: str) -> bool:
    """Return True if a text that matches the pattern of a token contains digits and letters, or is a private key or an address.

    The patterns of some services also match plain words, for which the result is False.
    """
    return "PRIVATE KEY" in text or "://" in text or (any(map(str.isdigit, text)) and any(map(str.isalpha, text)))


def _whole_word(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the range of the whole word around a match.

    A pattern may match only a part of a token, because services change the length of their tokens.
    """
    while start and _IN_TOKENS.match(text[start - 1]):
        start -= 1
    while end < len(text) and _IN_TOKENS.match(text[end]):
        end += 1
    return start, end


_IN_TOKENS = re.compile(_CHARACTERS)


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], ...]:
    """Return the patterns of detect-secrets for tokens of services.

    Four of its detectors are left out: those for IP addresses, passwords in addresses, private keys and Artifactory tokens.
    """
    import importlib
    import pkgutil

    import detect_secrets.plugins
    from detect_secrets.plugins.base import RegexBasedDetector

    left_out = {"IPPublicDetector", "BasicAuthDetector", "PrivateKeyDetector", "ArtifactoryDetector"}
    result: list[re.Pattern[str]] = []
    for module in pkgutil.iter_modules(detect_secrets.plugins.__path__):
        for name, kind in vars(importlib.import_module(f"detect_secrets.plugins.{module.name}")).items():
            if isinstance(kind, type) and issubclass(kind, RegexBasedDetector) and name not in left_out:
                patterns = kind.__dict__.get("denylist")
                result += (
                    [pattern for pattern in patterns if isinstance(pattern, re.Pattern)]
                    if isinstance(patterns, list | tuple)
                    else []
                )
    return tuple(dict.fromkeys(result))
