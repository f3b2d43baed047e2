"""``pack``: stored values in one file, for another person."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.planning.build import SelectionGraph, select
from stepwell.kernel_runtime.records.maintenance import Offer
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.store import packs
from stepwell.kernel_runtime.text import in_one_line, size_text

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


def _text(offer: Offer) -> str:
    return in_one_line(f"{offer.source}: {offer.counted}, {size_text(offer.size)}, signed with the key {offer.signer}")


@command(options={"selection": Option(completes="assets"), "path": Option(metavar="OUT.zip")}, text=_text)
def pack(selection: str | Iterable[str], path: str | os.PathLike[str], *, store: AnyStore = None) -> Offer:
    """Write the current values of a selection, with their records and code, into one signed file for another person.

    The file contains no signing key, no run history and nothing from the environment. The receiver inspects and imports it with `trust`.

    Parameters
    ----------
    selection
        Stored keys, or selections of them: "++model" is model and everything upstream. The steps inside a graph-backed asset are included.
    path
        The file to write; an existing file is replaced when the new one is complete.
    store
        A store directory or an open store; by default the session's.

    Returns
    -------
    Offer
        The contents of the file.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError
        If nothing is stored under a key, or the selection is invalid.
    PackError
        If the file cannot be written, or no selected key has a stored value.
    ValueUnavailableError, UntrustedValueError
        If a value's file is missing or damaged, or was signed with another key.
    """
    used = get_session().open(store, create=False)
    words = [selection] if isinstance(selection, str) else list(selection)
    if not words:
        raise InvalidInvocationError(
            "no key to pack was given", remedy='for example: stepwell.pack("model", "out.zip")'
        )
    return packs.write_pack(used, _selected(words, used), Path(path))


def _selected(words: Iterable[str], store: ValueStore) -> list[str]:
    """Return the stored keys that match selections, with the steps inside assets."""
    stored = store.snapshot(store.keys(), (), ()).current
    upstream = {key: {item.key for row in stored[key] for item in row.materialization.inputs} for key in sorted(stored)}
    kinds = dict.fromkeys(upstream, "")
    chosen = set(select(words, SelectionGraph(upstream, kinds, kinds)))
    inside = tuple(f"{key}{mark}" for key in chosen for mark in ".:")
    return [key for key in upstream if key in chosen or key.startswith(inside)]
