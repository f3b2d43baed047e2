"""The command ``pack``, which writes stored values into one file for another store."""

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
    """Write the current values of assets, with their records and code, into one signed file for another person.

    The file contains no signing key, no run history and no environment variables. The receiver inspects and imports the file with `trust`.

    Parameters
    ----------
    selection
        Keys in the store, or selections such as "++model", which selects model and everything upstream. The steps inside a graph-backed asset
        are included.
    path
        The file to write. An existing file is replaced when the new file is complete.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Offer
        A list of the values in the file.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError
        If nothing is stored under a selected key, or a selection is invalid.
    InvalidInvocationError
        If `selection` is empty.
    PackError
        If the file cannot be written, or the store has records but no values for the selected keys.
    ValueUnavailableError
        If a value file is missing or damaged.
    UntrustedValueError
        If a value was signed with another person's key.
    """
    used = get_session().open(store, create=False)
    words = [selection] if isinstance(selection, str) else list(selection)
    if not words:
        raise InvalidInvocationError("no key to pack was given", remedy='name a key: stepwell.pack("model", "out.zip")')
    return packs.write_pack(used, _selected(words, used), Path(path))


def _selected(words: Iterable[str], store: ValueStore) -> list[str]:
    """Return the keys in a store that match selections, and the keys of the steps inside the matching assets."""
    stored = store.snapshot(store.keys(), (), ()).current
    upstream = {key: {item.key for row in stored[key] for item in row.materialization.inputs} for key in sorted(stored)}
    kinds = dict.fromkeys(upstream, "")
    chosen = set(select(words, SelectionGraph(upstream, kinds, kinds)))
    inside = tuple(f"{key}{mark}" for key in chosen for mark in ".:")
    return [key for key in upstream if key in chosen or key.startswith(inside)]
