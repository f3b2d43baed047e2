"""The command ``versions``, which lists the stored versions of an asset or step."""

from __future__ import annotations

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.session.history import Versions, read_versions
from stepwell.kernel_runtime.session.requests import AnyStore, Target, key_text

_MOST = 20


def _text(listed: Versions) -> str:
    lines = [str(version) for version in (listed[:_MOST] if listed.collapsed else listed)]
    older = len(listed) - len(lines)
    return "\n".join([*lines, *([f"and {older:,} older; --all lists them"] if older else [])])


@command(
    options={"key": Option(completes="steps"), "all": Option("-a")},
    text=_text,
    data=lambda listed: {"key": listed.key, "versions": [version.as_dict() for version in listed]},
)
def versions(
    key: Target,
    *,
    notebook: str | None = None,
    partition: str | None = None,
    all: bool = False,  # noqa: A002 - the word that people type
    store: AnyStore = None,
) -> Versions:
    """List the versions of an asset or step, newest first.

    Parameters
    ----------
    key
        An asset or step.
    notebook
        The notebook whose versions are listed, named as in the output of this command; by default, the versions of all notebooks.
    partition
        The partition whose versions are listed; by default, versions of all partitions.
    all
        List every materialization. By default, if a notebook computed the same value several times in succession, these results are listed as one
        version.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Versions
        The versions.

    Raises
    ------
    UnknownKeyError
        If nothing is stored for the key.
    """
    used = get_session().open(store, create=False)
    return read_versions(used, key_text(key), notebook=notebook, partition=partition, collapse=not all)
