"""The key of a cell's asset, the inputs (assets whose names the cell reads), and the dependencies declared by flags."""

from __future__ import annotations

import builtins
import hashlib
import keyword
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from stepwell.kernel_runtime.errors import CellError, InvalidDefinitionError, UnknownKeyError, unknown_key
from stepwell.kernel_runtime.records.keys import AssetKey, as_asset_key, check_name
from stepwell.magics.cell_names import Names
from stepwell.magics.face import Face


def key_from(text: str, prefix: str | None, where: str) -> AssetKey:
    """Return the key on a magic's line; its last part must be a valid variable name.

    Raises
    ------
    CellError
        If a part of the key is not a valid name.
    """
    if "." in text:
        raise CellError(
            f"{text!r} is the name of a step, not of an asset",
            where=where,
            remedy="separate the prefix with '/': " + text.replace(".", "/"),
        )
    parts = (*(prefix.split("/") if prefix else ()), *text.split("/"))
    for part in parts:
        try:
            check_name("an asset", part, where=where)
        except InvalidDefinitionError as error:
            raise CellError(error.what, where=where, remedy=error.remedy) from None
    name = parts[-1]
    if not name.isidentifier() or keyword.iskeyword(name):
        raise CellError(
            f"{name!r} cannot be the name of an asset: the name becomes a variable",
            where=where,
            remedy=f"use a Python identifier, such as {'_' + name if not keyword.iskeyword(name) else name + '_'}",
        )
    return AssetKey(parts)


def read_inputs(texts: Sequence[str], where: str) -> dict[str, AssetKey]:
    """Return the inputs of ``--in NAME=KEY``.

    Raises
    ------
    CellError
        If a string does not have this form.
    """
    inputs = {}
    for text in texts:
        name, sign, key = text.partition("=")
        if not sign or not name.isidentifier() or not key:
            raise CellError(
                f"--in {text} cannot be read",
                where=where,
                remedy="write --in NAME=KEY, such as --in flights=raw/flights",
            )
        inputs[name] = as_asset_key(key)
    return inputs


def read_deps(face: Face, texts: Sequence[str], own_keys: Sequence[AssetKey], where: str) -> list[AssetKey]:
    """Return the dependencies of ``-d KEY``.

    Raises
    ------
    UnknownKeyError
        If an asset is neither registered nor stored.
    """
    deps = [as_asset_key(text) for text in texts]
    registered = face.session.registry.assets
    missing = [key for key in deps if str(key) not in registered]
    stored = set(face.session.store.keys()) if missing else set()
    for key in missing:
        if str(key) not in stored:
            own_names = {str(own_key) for own_key in own_keys}
            assets = [stored_key for stored_key in stored if not is_inner(stored_key)]
            raise UnknownKeyError(
                f"{own_keys[0].name!r} is to come after the asset {str(key)!r}, which is neither registered nor stored",
                where=where,
                remedy=unknown_key("asset", str(key), {*registered, *assets} - own_names).remedy,
            )
    return deps


def check_self_reference(
    names: Names, own_keys: Sequence[AssetKey], variables: Sequence[str], inputs: Mapping[str, AssetKey], where: str
) -> None:
    """Raise `CellError` if a body reads the name of its asset before it assigns the name.

    If the variable has another name, the body may read it first: ``df = df.dropna()`` in ``%%asset clean -> df`` reads the earlier `df`.
    """
    for key, variable in zip(own_keys, variables, strict=True):
        if variable in names.read_first and variable == key.name and variable not in inputs:
            raise CellError(
                f"the cell of {key.name!r} reads {key.name!r} before assigning it, so the asset would depend on itself",
                where=where, remedy=f"give the asset another key and keep the variable: %%asset {key.name}_2 -> {key.name}",
            )  # fmt: skip


def inputs_of(
    face: Face,
    names: Iterable[str],
    own_keys: Sequence[AssetKey],
    explicit: Mapping[str, AssetKey],
    where: str,
    *,
    origin: str = "",
) -> tuple[dict[str, AssetKey], tuple[tuple[str, str], ...]]:
    """Return the inputs of a body: the names that it reads and that refer to assets.

    A variable that Stepwell bound refers to its asset until a plain cell changes the variable. A name that is not a variable is an input if
    it is the last part of the key of a registered asset or of an asset of this notebook in the store.

    Parameters
    ----------
    origin
        Identifies the cell. When a cell runs again, a name refers to the same asset as before unless another cell has bound the name since.

    Returns
    -------
    inputs
        The key of the asset for each name.
    changed
        Variables of assets that plain cells changed, so that they are read by value, each with the label of the last such cell.

    Raises
    ------
    CellError
        If a name could refer to two assets.
    """
    inputs = dict(explicit)
    changed: list[tuple[str, str]] = []
    unknown = []
    registered = _by_name(face.session.registry.assets)
    own_names = {str(key) for key in own_keys}
    before = face.earlier_reads.get(origin, {})
    timeline, namespace = face.timeline, face.namespace
    for name in sorted(set(names) - set(inputs)):
        if face.is_definition(name):
            continue
        bound = timeline.bound_to(name)
        sharing = registered.get(name, [])
        if name in before and _is_bound_downstream(face, name, before[name], own_names):
            inputs[name] = before[name]
        elif bound is not None:
            if is_inner(bound.key) or bound.key in own_names:
                continue
            if bound.key in sharing:
                _only_key(name, sharing, where)
            if timeline.asset_of(name) is not None:
                inputs[name] = as_asset_key(bound.key)
            else:
                changed.append((name, bound.changed_by))
        elif name in namespace and not hasattr(type(namespace[name]), "__stepwell_asset_key__"):
            if label := timeline.changed_by(name):
                changed.append((name, label))
        elif keys := [key for key in sharing if key not in own_names]:
            inputs[name] = _only_key(name, keys, where)
        elif name not in own_names and name not in namespace and not hasattr(builtins, name):
            unknown.append(name)
    if unknown:
        keys = face.session.store.keys()
        stored = _by_name(key for key in keys if not is_inner(key))
        inputs |= {name: _only_key(name, stored[name], where) for name in unknown if name in stored}
    return inputs, tuple(changed)


def _is_bound_downstream(face: Face, name: str, earlier: AssetKey, own_keys: Collection[str]) -> bool:
    """Return True if the cell's step, or a step that depends on it, has bound a name that earlier referred to another asset."""
    bound, binder = face.timeline.bound_to(name), face.timeline.binder(name)
    if str(earlier) in own_keys or (bound is not None and bound.key == str(earlier)):
        return False
    return binder is not None and binder.kind == "step" and _comes_after(face, binder.id, own_keys)


def _comes_after(face: Face, step_key: str, own_keys: Collection[str]) -> bool:
    """Return True if a step computes an asset of a cell, or depends on such an asset."""
    registered = face.session.registry.assets
    pending = [step_key]
    seen: set[str] = set()
    while pending:
        key = pending.pop()
        if key in own_keys:
            return True
        entry = registered.get(key)
        if key in seen or entry is None:
            continue
        seen.add(key)
        pending += [str(upstream) for upstream in getattr(entry.definition, "upstream_keys", ())]
    return False


_WITH_VALUE = frozenset("-g --group -k --key-prefix -d --dep --in --ignore --max-age --reads --keep --drop".split())
"""Flags whose value is the next word."""


def cell_origin(info: Any) -> str:
    """Return an identifier of a cell: its id or, if the front end sends no id, the line of its magic or its whole source."""
    cell_id = getattr(info, "cell_id", None)
    if cell_id:
        return f"cell:{cell_id}"
    text = (info.raw_cell or "").strip()
    if text.startswith("%%"):
        words = iter(text.splitlines()[0].split())
        identifying: list[str] = []
        for word in words:
            if word in ("-k", "--key-prefix"):
                # The prefix is part of the key: cells of raw/flights and other/flights must differ.
                identifying.append(f"-k {next(words, '')}")
            elif word in _WITH_VALUE:
                next(words, "")
            elif not word.startswith("-") or word == "->":
                identifying.append(word)
        return f"magic:{' '.join(identifying)}"
    return f"text:{hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=12).hexdigest()}"


def is_inner(key: str) -> bool:
    """Return True if a key identifies a value inside a graph or job, not an asset."""
    return "." in key or ":" in key


def _by_name(keys: Iterable[str]) -> dict[str, list[str]]:
    keys_by_name: dict[str, list[str]] = {}
    for key in keys:
        keys_by_name.setdefault(key.rpartition("/")[2], []).append(key)
    return keys_by_name


def _only_key(name: str, keys: Sequence[str], where: str) -> AssetKey:
    if len(keys) > 1:
        raise CellError(
            f"{name!r} could be {' or '.join(sorted(keys))}",
            where=where,
            remedy=f"choose one: --in {name}={min(keys)}",
        )
    return as_asset_key(keys[0])
