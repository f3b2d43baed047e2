"""``diff``: how two versions of a key differ."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.commands.command import Option, command, read_names
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.session.differences import Difference, compare
from stepwell.kernel_runtime.session.differences.difference import Side
from stepwell.kernel_runtime.session.differences.frames import MEMORY
from stepwell.kernel_runtime.session.history import WhichVersion, two_versions, value_of
from stepwell.kernel_runtime.session.requests import AnyStore, Target, key_text


def _side(item: Materialization) -> Side:
    value = item.value
    return Side(item.id, item.created, value.type_name if value else "", value.summary if value else "")


@command(
    options={
        "key": Option(completes="steps"),
        "before": Option(metavar="A"),
        "after": Option(metavar="B"),
        "on": Option(read=read_names, metavar="COLUMN,..."),
        "memory_limit": Option(metavar="SIZE"),
    },
    displayed=True,
)
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
    """Show how two versions of an asset or step differ, by default the newest two that do.

    Parameters
    ----------
    key
        An asset or a step.
    before
        A version: a number (-2), the beginning of an identifier, or a time; by default the last different one.
    after
        A version; by default the newest.
    on
        For frames, the columns or index levels that match rows; empty for their position. By default a unique index, or a column named like
        a key that is unique in both, else the position.
    notebook
        Only versions that this notebook made.
    memory_limit
        For frames, the memory that the comparison may use before it spills to the disk.
    store
        A store directory or an open store; by default the session's.

    Raises
    ------
    UnknownKeyError, UnknownVersionError, ValueUnavailableError
        If there are no such versions, or one of them cannot be loaded.
    """
    name, used = key_text(key), get_session().open(store, create=False)
    old, new = two_versions(used, name, before, after, notebook)
    values = value_of(name, old), value_of(name, new)
    with used.scratch() as folder:
        return compare(
            name,
            _side(old),
            _side(new),
            (lambda: used.get(values[0], key=name), lambda: used.get(values[1], key=name)),
            same=bool(old.data_version) and old.data_version == new.data_version,
            on=on,
            memory_limit=memory_limit,
            folder=folder,
        )
