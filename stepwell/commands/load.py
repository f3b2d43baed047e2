"""The command ``load``, which loads the stored value of an asset or step."""

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
    """Load the current stored value of an asset or step.

    Changes of the returned object do not change the stored value: each call returns a new object, unless the type of the value is immutable. In a
    notebook, ``%stepwell load`` binds the value to a variable. The command line prints the value.

    Parameters
    ----------
    key
        An asset or step.
    store
        A store directory or an open store; by default the session's store.
    notebook
        The notebook whose value is loaded, named as in the output of stepwell versions; needed only if several notebooks computed different
        values of the key.
    version
        A version to load instead of the current value: a number (-1 is the newest version, -2 the version before it; 0 is the oldest), the
        beginning of a version's identifier (stepwell versions lists these), or a time, which selects the newest version at that time.
    verify
        ``full`` checks every byte of the value file. The default, ``signed``, checks every byte only at the first load after the machine started or
        the file changed; at later loads, it checks only the size and the bytes that can run code.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueUnavailableError
        If no value is stored, or the value cannot be loaded.
    AmbiguousKeyError
        If several notebooks computed different values of the key, and `notebook` is omitted.
    UnknownVersionError
        If `version` matches no version, or more than one.
    """
    return get_session().load(key_text(key), notebook=notebook, version=version, verify=verify, store=store)
