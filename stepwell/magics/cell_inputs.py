"""The asset key that a cell defines, the inputs of the cell (assets whose names it reads), and the dependencies that its flags declare."""

from __future__ import annotations

import builtins
import hashlib
import keyword
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from stepwell.kernel_runtime.errors import CellError, InvalidDefinitionError, UnknownKeyError, unknown_key
from stepwell.kernel_runtime.records.keys import AssetKey, as_asset_key, check_name, keys_text
from stepwell.magics.cell_names import Names
from stepwell.magics.face import Face


def key_from(text: str, prefix: str | None, where: str) -> AssetKey:
    """Return the asset key that the first line of a cell declares.

    Parameters
    ----------
    text
        The name or key on the line, such as ``flights`` or ``raw/flights``.
    prefix
        The value of ``--key-prefix``; None if the flag is not used.
    where
        The label of the cell, for messages.

    Raises
    ------
    CellError
        If a part of the key is not a valid name, or the last part, which becomes a variable, is not a Python identifier.
    """
    if "." in text:
        raise CellError(
            f"{text!r} contains a dot, so it could only be the name of a step, not of an asset",
            where=where,
            remedy=f"to write a key with a prefix, use '/' instead of the dot: {text.replace('.', '/')}",
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
            f"{name!r} cannot be the name of an asset: the asset's variable would have this name, which is not valid in Python",
            where=where,
            remedy=f"use a Python identifier, such as {'_' + name if not keyword.iskeyword(name) else name + '_'}",
        )
    return AssetKey(parts)


def read_inputs(texts: Sequence[str], where: str) -> dict[str, AssetKey]:
    """Return the names that the flag ``--in NAME=KEY`` declares, each with its asset key.

    Parameters
    ----------
    texts
        The values of the flag: ``NAME=KEY``.

    Raises
    ------
    CellError
        If a member of `texts` does not have the form ``NAME=KEY``.
    """
    inputs = {}
    for text in texts:
        name, sign, key = text.partition("=")
        if not sign or not name.isidentifier() or not key:
            raise CellError(
                f"invalid flag --in {text}: it must be a variable name, an equals sign and an asset key",
                where=where,
                remedy="write --in NAME=KEY, such as --in flights=raw/flights",
            )
        inputs[name] = as_asset_key(key)
    return inputs


def read_deps(face: Face, texts: Sequence[str], own_keys: Sequence[AssetKey], where: str) -> list[AssetKey]:
    """Return the asset keys that the flag ``-d KEY`` (``--dep KEY``) declares as dependencies.

    Parameters
    ----------
    texts
        The values of the flag.
    own_keys
        The keys of the assets that the cell defines, for messages.

    Raises
    ------
    UnknownKeyError
        If one of the assets is neither registered nor stored.
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
                f"the flag -d {key} of {own_keys[0].name!r} names an asset that does not exist: it is neither defined in this notebook nor stored",
                where=where,
                remedy=unknown_key("asset", str(key), {*registered, *assets} - own_names).remedy,
            )
    return deps


def check_self_reference(
    names: Names, own_keys: Sequence[AssetKey], variables: Sequence[str], inputs: Mapping[str, AssetKey], where: str
) -> None:
    """Raise `CellError` if an asset of a cell and its variable have the same name, and the body reads this variable before assigning it.

    A variable with another name than the asset may be read first: in ``%%asset clean -> df``, the body ``df = df.dropna()`` reads the ``df`` of an
    earlier cell.

    Parameters
    ----------
    own_keys, variables
        The keys of the assets that the cell defines, and the variable of each asset.
    inputs
        The names that refer to upstream assets, each with its asset key. The body may read these names before it assigns them.
    """
    for key, variable in zip(own_keys, variables, strict=True):
        if variable in names.read_first and variable == key.name and variable not in inputs:
            raise CellError(
                f"the cell of {key.name!r} reads {key.name!r} before it assigns {key.name!r}, so the asset would depend on itself",
                where=where, remedy=f"give the asset another name, and keep the name of the variable: %%asset {key.name}_2 -> {key.name}",
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
    """Return the inputs of the body of a cell: the names that the body reads and that refer to assets.

    A variable that Stepwell bound to the value of an asset refers to this asset until a cell changes the value in place, or a plain cell rebinds the
    variable. A name that is not a variable refers to an asset if it is the last part of the key of a registered asset or, if there is none, of a
    stored asset.

    Parameters
    ----------
    names
        The names that the body reads.
    own_keys
        The keys of the assets that the cell defines. They cannot be its inputs.
    explicit
        The names that the flag ``--in`` declares, each with its asset key.
    where
        The label of the cell, for messages.
    origin
        The identifier of the cell (`cell_origin`); empty if it is unknown. It is used to find the asset to which each name referred when the cell
        last ran. If the step of this cell or a step downstream of it has bound the name to another value since, the name still refers to that asset.

    Returns
    -------
    inputs
        The names that refer to assets, each with its asset key.
    changed
        The value of `CellBody.changed_variables`: pairs of a variable that no longer refers to an asset, because a cell has changed or rebound it,
        and the label of this cell. The body reads the variable like any other variable of the notebook.

    Raises
    ------
    CellError
        If a name is the last part of the keys of several assets.
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
    """Return True if the step of a cell, or a step downstream of it, has bound `name` to something other than the asset `earlier`.

    Such a binding must not change what the cell reads: in a run from top to bottom, it is made after the cell has run.

    Parameters
    ----------
    earlier
        The asset to which `name` referred when the cell last ran.
    own_keys
        The keys of the assets that the cell defines.
    """
    bound, binder = face.timeline.bound_to(name), face.timeline.binder(name)
    if str(earlier) in own_keys or (bound is not None and bound.key == str(earlier)):
        return False
    return binder is not None and binder.kind == "step" and _comes_after(face, binder.id, own_keys)


def _comes_after(face: Face, step_key: str, own_keys: Collection[str]) -> bool:
    """Return True if the asset `step_key` is one of `own_keys`, or depends on one of them."""
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
"""The flags of asset cells that take a value, which is the next word of the line."""


def cell_origin(info: Any) -> str:
    """Return an identifier of a cell, by which a later run of the same cell is recognized.

    The identifier is made from the id that the front end sends with the cell. If it sends no id, the identifier of a cell with a cell magic is made
    from the first line without its flags (except ``--key-prefix``), and that of any other cell from the digest of the source.

    Parameters
    ----------
    info
        IPython's record of the cell.
    """
    cell_id = getattr(info, "cell_id", None)
    if cell_id:
        return f"cell:{cell_id}"
    text = (info.raw_cell or "").strip()
    if text.startswith("%%"):
        words = iter(text.splitlines()[0].split())
        identifying: list[str] = []
        for word in words:
            if word in ("-k", "--key-prefix"):
                # The prefix is part of the key: the cells that define raw/flights and other/flights must have different identifiers.
                identifying.append(f"-k {next(words, '')}")
            elif word in _WITH_VALUE:
                next(words, "")
            elif not word.startswith("-") or word == "->":
                identifying.append(word)
        return f"magic:{' '.join(identifying)}"
    return f"text:{hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=12).hexdigest()}"


def is_inner(key: str) -> bool:
    """Return True if `key` is the key of a value inside a graph or job; return False for an asset key."""
    return "." in key or ":" in key


def _by_name(keys: Iterable[str]) -> dict[str, list[str]]:
    keys_by_name: dict[str, list[str]] = {}
    for key in keys:
        keys_by_name.setdefault(key.rpartition("/")[2], []).append(key)
    return keys_by_name


def _only_key(name: str, keys: Sequence[str], where: str) -> AssetKey:
    if len(keys) > 1:
        raise CellError(
            f"the name {name!r} could refer to {len(keys)} assets: {keys_text(sorted(keys))}",
            where=where,
            remedy=f"add a flag that names the asset: --in {name}={min(keys)}",
        )
    return as_asset_key(keys[0])
