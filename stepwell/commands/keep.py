"""``keep``: rules of what is kept."""

from __future__ import annotations

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.records.maintenance import STORE, Rule
from stepwell.kernel_runtime.session.requests import AnyStore, Target, key_text
from stepwell.kernel_runtime.store import retention
from stepwell.kernel_runtime.store.retention import read_age, read_bytes, read_versions, rules_of


def _text(rules: dict[str, Rule]) -> str:
    lines = [f"{key or 'the whole store'}: {rule}" for key, rule in rules.items()]
    return "\n".join(lines) or "everything is kept: no rule drops anything"


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
    """Show or set how much is kept of a key, or of the whole store.

    Nothing is dropped without a rule. The current value and the newest version of a key always stay. Rules are applied by `gc`, and when a
    session ends, at most once an hour. Limits that are given replace those of the same name; others stay.

    Parameters
    ----------
    key
        An asset or a step; empty for the whole store.
    versions
        How many of the newest different values are kept, for each notebook and partition.
    age
        Seconds, or 30d, after which a version is dropped.
    bytes
        Bytes, or 10GB, of all values together.
    forever
        Remove the rule.
    store
        A store directory or an open store; by default the session's.

    Raises
    ------
    InvalidInvocationError
        If a limit cannot be read.
    """
    used, name = get_session().open(store), key_text(key)
    rule = Rule(read_versions(versions), read_age(age), read_bytes(bytes))
    if forever:
        retention.keep(used, name, rule)
    elif not rule.empty:
        before = rules_of(used).get(name, Rule())
        retention.keep(
            used,
            name,
            Rule(
                rule.versions if rule.versions is not None else before.versions,
                rule.age if rule.age is not None else before.age,
                rule.bytes if rule.bytes is not None else before.bytes,
            ),
        )
    return rules_of(used)
