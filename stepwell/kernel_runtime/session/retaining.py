"""Setting the rules of what is kept, from limits as people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.kernel_runtime.records.maintenance import Rule
from stepwell.kernel_runtime.store.retention import keep, read_age, read_bytes, read_versions, rules_of

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


def set_rule(
    store: ValueStore,
    key: str,
    *,
    versions: int | str | None = None,
    age: float | str | None = None,
    size: int | str | None = None,
    forever: bool = False,
) -> dict[str, Rule]:
    """Set what is kept of a key, or of the whole store where it is empty; return the rules that hold.

    Limits that are given replace those of the same name, others stay; without any nothing changes. `forever` takes the rule back first.

    Raises
    ------
    InvalidInvocationError
        If a limit cannot be read.
    """
    rule = Rule(read_versions(versions), read_age(age), read_bytes(size))
    if forever:
        keep(store, key, rule)
    elif not rule.empty:
        before = rules_of(store).get(key, Rule())
        keep(
            store,
            key,
            Rule(
                rule.versions if rule.versions is not None else before.versions,
                rule.age if rule.age is not None else before.age,
                rule.bytes if rule.bytes is not None else before.bytes,
            ),
        )
    return rules_of(store)
