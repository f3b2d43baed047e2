"""Sharing what is stored: packing it for somebody else, and trusting what somebody else made."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stepwell.kernel_runtime.errors import InvalidInvocationError, StepwellWarning, TrustNeededError
from stepwell.kernel_runtime.planning.build import SelectionGraph, select
from stepwell.kernel_runtime.records.maintenance import Offer
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.store import packs
from stepwell.kernel_runtime.store import trust as trust_of_store
from stepwell.kernel_runtime.store.signing import Signer

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

What: TypeAlias = "str | os.PathLike[str] | Iterable[str] | None"
"""A pack, or keys in the store; None for everything in the store."""


def pack(selection: str | Iterable[str], path: str | os.PathLike[str], *, store: AnyStore = None) -> Offer:
    """Write the current values of a selection into one file; parameters and errors as of the command ``pack``."""
    used = _store(store)
    words = [selection] if isinstance(selection, str) else list(selection)
    if not words:
        raise InvalidInvocationError(
            "nothing to pack is named", remedy='for example: stepwell.pack("model", "out.zip")'
        )
    return packs.write_pack(used, selected(words, used), Path(path))


def selected(words: Iterable[str], store: ValueStore) -> list[str]:
    """Return the keys that selection strings mean among what a store holds, with the steps inside assets.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError
        As of `select`.
    """
    held = store.snapshot(store.keys(), (), ()).current
    upstream = {key: {each.key for row in held[key] for each in row.materialization.inputs} for key in sorted(held)}
    kinds = dict.fromkeys(upstream, "")
    chosen = select(words, SelectionGraph(upstream, kinds, kinds))
    inside = tuple(f"{key}{mark}" for key in chosen for mark in ".:")
    return [key for key in upstream if key in set(chosen) or key.startswith(inside)]


def trust(what: What = None, *, store: AnyStore = None, yes: bool = False) -> Offer:
    """Take over a pack, or values in the store, that another key signed; parameters and errors as of the command ``trust``."""
    path = _pack_path(what)
    if path is not None:
        # Looked at before a store is made for it.
        offer = trust_of_store.inspect_pack(path, Signer())
        if not (yes or offer.own):
            raise needed(offer)
        return trust_of_store.import_pack(_store(store, create=True), path)
    used = _store(store)
    given = trust_of_store.foreign_values(used, _keys(what))
    if not given.offer.own:
        if not yes:
            raise needed(given.offer)
        for key in trust_of_store.adopt(used, given):
            warnings.warn(f"{key} is damaged and was left alone", StepwellWarning, stacklevel=2)
    return given.offer


def offered(what: What = None, *, store: AnyStore = None) -> Offer:
    """Return what `trust` would take over; errors as of `trust`, but for `TrustNeededError`."""
    path = _pack_path(what)
    used = _store(store)
    if path is not None:
        return trust_of_store.inspect_pack(path, used.signer)
    return trust_of_store.foreign_values(used, _keys(what)).offer


def _pack_path(what: What) -> Path | None:
    if isinstance(what, os.PathLike):
        return Path(what)
    if not isinstance(what, str):
        return None
    # Another file than a pack is told to be none, not an unknown key.
    return Path(what) if what.endswith(".zip") or (Path(what).suffix and Path(what).is_file()) else None


def _keys(what: What) -> list[str] | None:
    if what is None or isinstance(what, str):
        return None if what is None else [what]
    return [str(key) for key in what]  # type: ignore[union-attr]  # a path is a pack


def needed(offer: Offer) -> TrustNeededError:
    """Return the error that tells what would be trusted."""
    count = len(offer.values)
    error = TrustNeededError(
        f"{count} value{'' if count == 1 else 's'} in {offer.source} {'is' if count == 1 else 'are'} signed with another key "
        f"({offer.signer}); loading {offer.executing} of them can run code",
        where=", ".join(dict.fromkeys(value.key for value in offer.values[:8])),
        remedy="if you trust who made that: yes=True (on the command line --yes)",
    )
    error.offer = offer
    return error


def _store(store: AnyStore, *, create: bool = False) -> ValueStore:
    from stepwell.kernel_runtime.session.session import get_session

    return get_session().open(store, create=create)
