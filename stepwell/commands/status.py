"""The command ``status``, which lists the state of each definition, or the contents of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepwell.commands.command import Option, Table, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import unknown_key
from stepwell.kernel_runtime.records.maintenance import KeySize
from stepwell.kernel_runtime.records.materializations import NOTEBOOK, Current
from stepwell.kernel_runtime.records.runs import LineageNode
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.catalog.tables import read_all_current
from stepwell.kernel_runtime.text import duration, in_one_line, moment, size_text

_MOST = 20


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The directory and size of a store: the result of the command ``store``. ``str`` returns one line, which `status` prints, too."""

    directory: str
    sizes: dict[str, int]
    """The numbers of ``materializations``, ``runs`` and ``objects`` (value files), and the sizes ``object_bytes`` and ``catalog_bytes``."""

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as JSON values: ``{"store", "sizes"}``."""
        return {"store": self.directory, "sizes": self.sizes}

    def __str__(self) -> str:
        total = size_text(self.sizes["object_bytes"] + self.sizes["catalog_bytes"])
        return f"store: {self.directory} · {self.sizes['materializations']:,} materializations · {total}"


@dataclass(frozen=True, slots=True)
class Status:
    """The result of `status`.

    Attributes
    ----------
    store
        The store directory.
    nodes
        The listed assets, steps and jobs, which are defined in this process, with their states.
    stored
        The listed current materializations: those of the requested keys that are not defined in this process. If nothing is defined and no key was
        requested, these are all current materializations.
    sizes
        The number of materializations, and other totals of the store.
    key_sizes
        The total size of the values of each key in the store, largest first; None if sizes were not requested.
    """

    store: str
    nodes: tuple[LineageNode, ...]
    stored: tuple[Current, ...]
    sizes: dict[str, int]
    key_sizes: tuple[KeySize, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values: ``{"store", "sizes", "assets": [{"key", "state", ...}]}``.

        If sizes were requested, ``"keys": [{"key", "bytes", "versions"}]`` replaces ``"assets"``.
        """
        result: dict[str, Any] = {"store": self.store, "sizes": self.sizes}
        if self.key_sizes is not None:
            result["keys"] = [{"key": size.key, "bytes": size.bytes, "versions": size.versions} for size in self.key_sizes]
            return result
        names = ("key", "state", "reason", "summary", "seconds", "created", "error", "where")
        defined = [{name: getattr(node, name) for name in names} for node in self.nodes]
        return {**result, "assets": [*defined, *map(_stored_as_dict, self.stored)]}

    def __str__(self) -> str:
        end = str(StoreFacts(self.store, self.sizes))
        if self.key_sizes is not None:
            return "\n".join([*_size_lines(self.key_sizes), end])
        width = max((len(node.key) for node in self.nodes), default=0)
        lines = [in_one_line(f"{node.key.ljust(width)}  {_facts(node)}") for node in self.nodes]
        if self.stored or not self.nodes:
            rows = [tuple(map(in_one_line, row)) for row in map(_stored_row, self.stored)]
            lines.append(str(Table(rows, "nothing is stored yet")))
        return "\n".join([*lines, end])


def _facts(node: LineageNode) -> str:
    why = node.error.partition("\n")[0] or node.reason
    seconds = duration(node.seconds) if node.seconds is not None else ""
    created = moment(node.created) if node.created is not None else ""
    return " · ".join(filter(None, [node.state or node.kind, why, node.summary, seconds, created]))


def _stored_row(item: Current) -> tuple[str, ...]:
    materialization = item.materialization
    return (
        item.key,
        materialization.value.summary if materialization.value else "-",
        moment(materialization.created),
        item.notebook,
    )


def _stored_as_dict(item: Current) -> dict[str, Any]:
    materialization = item.materialization
    return {
        "key": item.key,
        "state": "stored",
        "notebook": item.notebook,
        "created": materialization.created,
        "seconds": materialization.seconds,
        "type": materialization.value.type_name if materialization.value else None,
        "summary": materialization.value.summary if materialization.value else None,
    }


def _size_lines(sizes: tuple[KeySize, ...]) -> list[str]:
    rows = [
        (in_one_line(size.key), size_text(size.bytes), f"{size.versions:,} version{'' if size.versions == 1 else 's'}")
        for size in sizes[:_MOST]
    ]
    more = sizes[_MOST:]
    rest = [f"and {len(more):,} more keys: {size_text(sum(size.bytes for size in more))}"] if more else []
    return [*filter(None, [str(Table(rows))]), *rest]


@command(options={"keys": Option(completes="assets")}, definitions="optional")
def status(*keys: str, sizes: bool = False, store: AnyStore = None) -> Status:
    """List the defined assets and steps with their states; if nothing is defined, list the values in the store.

    Parameters
    ----------
    keys
        The keys of assets and steps to list; by default all.
    sizes
        Instead of states, list all keys in the store with the total size of their values, largest first; `keys` is then ignored.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Status
        The states, stored values or sizes of the keys, and the size of the store.

    Raises
    ------
    UnknownKeyError
        If a key is neither defined nor stored.
    """
    session = get_session()
    value_store = session.open(store, create=False)
    totals = housekeeping.sizes(value_store)
    directory = str(value_store.directory)
    if sizes:
        return Status(directory, (), (), totals, tuple(value_store.catalog.ask(housekeeping.read_key_sizes)))
    registry = session.registry
    nodes = session.inspect(store=value_store).lineage().nodes if registry.assets or registry.jobs else ()
    requested_keys, defined_keys = set(keys), {name for node in nodes for name in _names(node)}
    stored: tuple[Current, ...] = ()
    if not nodes or not requested_keys <= defined_keys:
        # Omit the internal keys under which the effects of cells are stored.
        stored = tuple(
            item
            for item in value_store.catalog.ask(read_all_current)
            if item.key not in defined_keys and not item.key.endswith(f":{NOTEBOOK}")
        )
    known_keys = defined_keys | {item.key for item in stored}
    for key in keys:
        if key not in known_keys:
            raise unknown_key("asset or step", key, known_keys)
    return Status(
        directory,
        tuple(node for node in nodes if not requested_keys or not requested_keys.isdisjoint(_names(node))),
        tuple(item for item in stored if (not requested_keys and not nodes) or item.key in requested_keys),
        totals,
    )


def _names(node: LineageNode) -> tuple[str, ...]:
    """Return the keys by which a user can name a card: its key, the assets of its step, and the asset that contains it."""
    return tuple(filter(None, (node.key, *node.assets, node.parent)))
