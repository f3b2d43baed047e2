"""The command ``keep``, which shows and sets retention rules."""

from __future__ import annotations

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.records.maintenance import STORE, Rule
from stepwell.kernel_runtime.session.requests import AnyStore, Target, key_text
from stepwell.kernel_runtime.store import retention
from stepwell.kernel_runtime.store.retention import read_age, read_bytes, read_versions, rules_of
from stepwell.kernel_runtime.text import age_text, size_text


def _text(rules: dict[str, Rule]) -> str:
    lines = [f"{key or 'the whole store'}: {_rule_text(rule)}" for key, rule in rules.items()]
    return "\n".join(lines) or "everything is kept: there are no rules"


def _rule_text(rule: Rule) -> str:
    """Return the limits of a rule as text, for example ``3 versions, 30d long, at most 10.0 GB``."""
    limits = []
    if rule.versions is not None:
        limits.append(f"{rule.versions} version{'' if rule.versions == 1 else 's'}")
    if rule.age is not None:
        limits.append(f"{age_text(rule.age)} long")
    if rule.bytes is not None:
        limits.append(f"at most {size_text(rule.bytes)}")
    return ", ".join(limits) or "everything"


@command(
    options={
        "key": Option(completes="steps"),
        "versions": Option(metavar="N"),
        "age": Option(metavar="30d"),
        "bytes": Option(metavar="10GB"),
    },
    text=_text,
    data=lambda rules: {"rules": {key: rule.as_dict() for key, rule in rules.items()}},
)
def keep(
    key: Target = STORE,
    *,
    versions: int | str | None = None,
    age: float | str | None = None,
    bytes: int | str | None = None,  # noqa: A002 - the word that people type
    forever: bool = False,
    store: AnyStore = None,
) -> dict[str, Rule]:
    """Show or set retention rules, which limit how many versions of an asset or step the store keeps.

    Without a rule, every version is kept. The current and the newest version of a key are always kept. The versions that exceed a limit are
    deleted by `gc` and, at most once an hour, at the end of a session that ran steps. If no limit is passed, the rules are only shown. If some
    limits are passed, the other limits of the rule keep their present values.

    Parameters
    ----------
    key
        An asset or step; empty for the rule of the whole store, which applies to all keys. If the rule of a key limits versions or age, this limit
        replaces the same limit of the store. A limit on bytes does not replace the store's: both apply.
    versions
        The maximum number of versions to keep for each key, notebook and partition. Consecutive versions with equal values count as one.
    age
        The age at which a version is deleted: seconds, or a text such as 30d.
    bytes
        The maximum total size of the values of the key or, for the rule of the store, of all keys: bytes, or a text such as 10GB. The oldest
        values are deleted first.
    forever
        Remove the rule of the key or, without a key, the rule of the whole store.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    dict
        All rules by key; the rule of the whole store has the empty key.

    Raises
    ------
    InvalidInvocationError
        If a limit is invalid, such as ``versions=0``, or is passed together with ``forever``.
    """
    used, name = get_session().open(store), key_text(key)
    rule = Rule(read_versions(versions), read_age(age), read_bytes(bytes))
    if forever and not rule.empty:
        raise InvalidInvocationError(
            f"{repr(name) if name else 'the whole store'}: forever removes the rule, so it cannot be combined with limits",
            where=f"the passed limits: {_rule_text(rule)}",
            remedy="leave out forever to set limits, or leave out the limits to remove the rule",
        )
    if forever:
        retention.keep(used, name, rule)
    elif not rule.empty:
        old = rules_of(used).get(name, Rule())
        retention.keep(
            used,
            name,
            Rule(
                rule.versions if rule.versions is not None else old.versions,
                rule.age if rule.age is not None else old.age,
                rule.bytes if rule.bytes is not None else old.bytes,
            ),
        )
    return rules_of(used)
