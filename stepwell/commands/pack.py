"""``pack``: stored values in one file, to share with another person."""

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
    """Write the current values of a selection into one file that another person can trust: values, their records, their code.

    No key, no run history and nothing of the environment is in it. The receiver looks at it, and takes it over, with `trust`.

    Parameters
    ----------
    selection
        Keys, or selections of what is stored: "++model" with all upstream. The steps inside a graph-backed asset come with it.
    path
        The file to write; an existing one is replaced when the new one is complete.
    store
        A store directory or an open store; by default the session's.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError
        If nothing is stored under a name, or the selection cannot be read.
    PackError
        If the file cannot be written, or nothing has a stored value.
    ValueUnavailableError, UntrustedValueError
        If a value's file is gone or damaged, or was signed with another key.
    """
    used = get_session().open(store, create=False)
    words = [selection] if isinstance(selection, str) else list(selection)
    if not words:
        raise InvalidInvocationError(
            "nothing to pack is named", remedy='for example: stepwell.pack("model", "out.zip")'
        )
    return packs.write_pack(used, _selected(words, used), Path(path))


def _selected(words: Iterable[str], store: ValueStore) -> list[str]:
    """Return the stored keys that selections mean, with the steps inside assets."""
    stored = store.snapshot(store.keys(), (), ()).current
    upstream = {key: {item.key for row in stored[key] for item in row.materialization.inputs} for key in sorted(stored)}
    kinds = dict.fromkeys(upstream, "")
    chosen = set(select(words, SelectionGraph(upstream, kinds, kinds)))
    inside = tuple(f"{key}{mark}" for key in chosen for mark in ".:")
    return [key for key in upstream if key in chosen or key.startswith(inside)]
