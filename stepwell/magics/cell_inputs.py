"""From the names that a body reads to the assets that are its inputs."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable, Mapping, Sequence

from stepwell.kernel_runtime.errors import CellError, InvalidDefinitionError, UnknownKeyError, unknown_key
from stepwell.kernel_runtime.records.keys import AssetKey, as_asset_key, check_name
from stepwell.magics.cell_names import Names
from stepwell.magics.face import Face


def key_from(written: str, prefix: str | None, where: str) -> AssetKey:
    """Read an asset's key as typed on a magic's line: its last part becomes a variable.

    Raises
    ------
    CellError
        If a part cannot be a name.
    """
    if "." in written:
        raise CellError(
            f"{written!r} is the name of a step, not of an asset",
            where=where,
            remedy="a key with a prefix is written with '/': " + written.replace(".", "/"),
        )
    parts = (*(prefix.split("/") if prefix else ()), *written.split("/"))
    for part in parts:
        try:
            check_name("an asset", part, where=where)
        except InvalidDefinitionError as error:
            raise CellError(error.what, where=where, remedy=error.remedy) from None
    name = parts[-1]
    if not name.isidentifier() or keyword.iskeyword(name):
        raise CellError(
            f"{name!r} cannot be the name of an asset: it becomes a variable",
            where=where,
            remedy=f"use a Python name, such as {'_' + name if not keyword.iskeyword(name) else name + '_'}",
        )
    return AssetKey(parts)


def given_inputs(given: Sequence[str], where: str) -> dict[str, AssetKey]:
    """Read ``--in NAME=KEY``.

    Raises
    ------
    CellError
        If it has another form.
    """
    found = {}
    for text in given:
        name, sign, key = text.partition("=")
        if not sign or not name.isidentifier() or not key:
            raise CellError(
                f"--in {text} cannot be read",
                where=where,
                remedy="write --in NAME=KEY, such as --in flights=raw/flights",
            )
        found[name] = as_asset_key(key)
    return found


def given_deps(face: Face, given: Sequence[str], own: Sequence[AssetKey], where: str) -> list[AssetKey]:
    """Read ``-d KEY``.

    Raises
    ------
    UnknownKeyError
        If no such asset is registered or stored: an order after nothing would be no order.
    """
    found = [as_asset_key(text) for text in given]
    registered = face.session.registry.assets
    missing = [key for key in found if str(key) not in registered]
    stored = set(face.session.store.keys()) if missing else set()
    for key in missing:
        if str(key) not in stored:
            mine = {str(each) for each in own}
            assets = [each for each in stored if not is_inner(each)]
            raise UnknownKeyError(
                f"{own[0].name!r} is to come after the asset {str(key)!r}, which is neither registered nor stored",
                where=where,
                remedy=unknown_key("asset", str(key), {*registered, *assets} - mine).remedy,
            )
    return found


def check_own_name(names: Names, own: Iterable[AssetKey], given: Mapping[str, AssetKey], where: str) -> None:
    """Raise `CellError` if a body reads the name of its asset before assigning it."""
    for key in own:
        if key.name in names.early and key.name not in given:
            raise CellError(
                f"the cell of {key.name!r} reads {key.name!r} before it assigns it: the asset would depend on itself",
                where=where, remedy=f"give the asset another name than what it reads: %%asset {key.name}_2",
            )  # fmt: skip


def inputs_of(
    face: Face, names: Iterable[str], own: Sequence[AssetKey], given: Mapping[str, AssetKey], where: str
) -> dict[str, AssetKey]:
    """Return which of the names that a body reads are assets, each with its key.

    A name is an input if it is the last part of a registered asset's key, or a variable that is bound to a stored asset. A
    name that is neither registered nor a variable is one if it is in the store.

    Raises
    ------
    CellError
        If two assets share the name.
    """
    found = dict(given)
    registered = _by_name(face.session.registry.assets)
    mine = {str(key) for key in own}
    mine_names = {key.name for key in own}
    unknown = []
    for name in sorted(set(names) - set(found)):
        if face.is_definition(name):
            continue
        keys = [key for key in registered.get(name, ()) if key not in mine]
        bound = face.bindings.key_of(name)
        if bound and bound not in mine and not is_inner(bound) and (len(keys) < 2 or bound not in keys):
            # Whichever asset has this name otherwise, the variable is the value of this one.
            found[name] = as_asset_key(bound)
        elif keys:
            found[name] = _only(name, keys, where)
        elif name not in mine_names and name not in face.namespace and not hasattr(builtins, name):
            unknown.append(name)
    if unknown:
        known = face.session.store.keys()
        stored = _by_name(key for key in known if not is_inner(key))
        for name in unknown:
            if name in stored:
                found[name] = _only(name, stored[name], where)
    return found


def is_inner(key: str) -> bool:
    """Whether a key is that of a step's value inside a graph or job, not that of an asset."""
    return "." in key or ":" in key


def _by_name(keys: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(key.rpartition("/")[2], []).append(key)
    return found


def _only(name: str, keys: Sequence[str], where: str) -> AssetKey:
    if len(keys) > 1:
        raise CellError(
            f"{name!r} could be {' or '.join(sorted(keys))}",
            where=where,
            remedy=f"say which: --in {name}={min(keys)}",
        )
    return as_asset_key(keys[0])
