"""``load``: the value of an asset or step."""

from __future__ import annotations

from typing import Any

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.records.materializations import Verify
from stepwell.kernel_runtime.session.history import WhichVersion
from stepwell.kernel_runtime.session.requests import AnyStore, key_text
from stepwell.kernel_runtime.store.values.structure import summary, type_name


def _data(value: Any) -> dict[str, Any]:
    return {"type": type_name(value), "summary": summary(value), "value": repr(value)}


@command(options={"key": Option(completes="steps", repeated=True)}, text=repr, data=_data)
def load(
    key: AssetKey | AssetsDefinition | SourceAsset | str,
    *,
    store: AnyStore = None,
    notebook: str | None = None,
    version: WhichVersion | None = None,
    verify: Verify = "signed",
) -> Any:
    """Load the current value of an asset or step; values of mutable types are copies.

    In a notebook ``%stepwell load`` binds it to a variable; the command line prints it.

    Parameters
    ----------
    key
        An asset or a step.
    store
        A store directory or an open store; by default the session's.
    notebook
        The notebook to load from, if several notebooks define the key with different values.
    version
        An older version: a number (-1 is the newest, -2 the one before), the beginning of an identifier, or a time.
    verify
        ``full`` checks every byte of the value's file; by default this happens only at the first load since the machine started.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueUnavailableError
        If no value is stored, or it cannot be loaded.
    AmbiguousKeyError
        If several notebooks have different values of the key.
    UnknownVersionError
        If no version, or more than one, matches.
    """
    return get_session().load(key_text(key), notebook=notebook, version=version, verify=verify, store=store)
