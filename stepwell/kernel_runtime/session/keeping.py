"""Public functions about time, size and health: versions of a key and how they differ, renaming, forgetting, what is kept, the doctor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepwell.kernel_runtime.records.retention import STORE, Collected, Forgotten, Rule
from stepwell.kernel_runtime.session.differences import Difference
from stepwell.kernel_runtime.session.differences.frames import MEMORY
from stepwell.kernel_runtime.session.functions import AnyStore, key_text
from stepwell.kernel_runtime.session.history import Versions, WhichVersion
from stepwell.kernel_runtime.session.kernel import get_session
from stepwell.kernel_runtime.session.requests import Target

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.doctor.checks import Finding


def versions(
    key: Target,
    *,
    notebook: str | None = None,
    partition: str | None = None,
    collapse: bool = True,
    store: AnyStore = None,
) -> Versions:
    """Return the versions of an asset or step, newest first.

    Parameters
    ----------
    notebook, partition
        Only those that a notebook made, only those of a partition.
    collapse
        Whether neighbours with the same value are one version.

    Raises
    ------
    UnknownKeyError
        If nothing was ever stored for it.
    """
    return get_session().versions(key_text(key), notebook=notebook, partition=partition, collapse=collapse, store=store)


def diff(
    key: Target,
    before: WhichVersion | None = None,
    after: WhichVersion | None = None,
    *,
    on: Sequence[str] | None = None,
    notebook: str | None = None,
    memory_limit: str = MEMORY,
    store: AnyStore = None,
) -> Difference:
    """Return how two versions of an asset or step differ: by default the newest two that do.

    Parameters
    ----------
    before, after
        Versions as `load` takes them; with one, it is compared with the newest.
    on
        For frames, the columns or index levels that rows are matched by; ``[]`` for their position. By default a unique
        index, or a column named like a key that is unique in both, else the position.
    memory_limit
        For frames, how much memory the comparison may use before it spills to the disk.

    Raises
    ------
    UnknownKeyError, UnknownVersionError, ValueUnavailableError
        If there are no such versions, or one of them cannot be loaded.
    """
    return get_session().diff(
        key_text(key), before, after, on=on, notebook=notebook, memory_limit=memory_limit, store=store
    )


def rename(old: str, new: str, *, store: AnyStore = None) -> int:
    """Carry what is stored for an asset over to another key; return how many versions.

    A cell that is renamed likewise, its variable too, is not computed again.

    Raises
    ------
    UnknownKeyError, InvalidDefinitionError, InvalidInvocationError, InvariantViolationError
        If there is nothing to carry over, the new key is none or has results, or the old one is an output of a multi-asset.
    """
    return get_session().rename(key_text(old), key_text(new), store=store)


def forget(key: Target, *, dry_run: bool = False, store: AnyStore = None) -> Forgotten:
    """Remove every version of an asset or step, of all notebooks, with the steps inside it. Not to be undone.

    Values that another key has too stay.

    Raises
    ------
    UnknownKeyError
        If nothing is stored for it.
    """
    return get_session().forget(key_text(key), dry_run=dry_run, store=store)


def keep(
    key: Target = STORE,
    *,
    versions: int | str | None = None,
    age: float | str | None = None,
    bytes: int | str | None = None,  # noqa: A002 - the word that people type
    forever: bool = False,
    store: AnyStore = None,
) -> dict[str, Rule]:
    """Set what is kept of a key, or of the whole store; return the rules that hold. Without limits it only tells.

    Parameters
    ----------
    key
        An asset or step; empty for the whole store.
    versions
        How many of the newest different values are kept, for each notebook and partition.
    age
        Seconds, or ``30d``, after which a version is dropped.
    bytes
        Bytes, or ``10GB``, of all values together.
    forever
        Whether the rule is taken back.

    Raises
    ------
    InvalidInvocationError
        If a limit cannot be read.
    """
    return get_session().keep(key_text(key), versions=versions, age=age, bytes=bytes, forever=forever, store=store)


def gc(*, dry_run: bool = False, compact: bool | None = None, store: AnyStore = None) -> Collected:
    """Delete versions that the rules drop, value files that nothing refers to, and what dead processes left.

    Parameters
    ----------
    dry_run
        Only tell what would be freed.
    compact
        Whether the catalog is written anew; None where it is large and mostly free room.
    """
    return get_session().gc(dry_run=dry_run, compact=compact, store=store)


def doctor(*, store: AnyStore = None, full: bool = True, clean: bool = False, rebuild: bool = False) -> list[Finding]:
    """Check a store and its surroundings; return what is found, each with what to do.

    Parameters
    ----------
    store
        A directory or an open store, also one that cannot be opened; by default the session's.
    full
        Whether every byte of every value file is checked.
    clean
        Whether what is surely garbage is removed.
    rebuild
        Whether the catalog is made anew of what can be read of it and of the value files' headers.

    Raises
    ------
    StoreError
        If there is no store.
    """
    return get_session().doctor(store=store, full=full, clean=clean, rebuild=rebuild)
