"""``why``: the state of an asset or step, and its cause."""

from __future__ import annotations

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.session import acceptance
from stepwell.kernel_runtime.session.explanation import Explanation, explain
from stepwell.kernel_runtime.session.requests import AnyStore, Given, key_text


@command(options={"key": Option(completes="steps")}, definitions="optional")
def why(
    key: AssetKey | AssetsDefinition | SourceAsset | str,
    *,
    accept: bool = False,
    revoke: bool = False,
    definitions: Given = None,
    store: AnyStore = None,
) -> Explanation:
    """Explain the state of an asset or step, and why it ran the last time that it was not reused.

    Causes are followed upstream to their origin. A key that is only stored, because its cell has not run here, is explained by the store's
    records.

    Parameters
    ----------
    key
        An asset or a step.
    accept
        Mark the edit as not mattering: the stored value is valid for the present code.
    revoke
        Take the last acceptance back.
    definitions
        Definitions, or a module of them, that are looked up before those that are registered.
    store
        A store directory or an open store; by default the session's.

    Raises
    ------
    UnknownKeyError
        If nothing has this key.

    Examples
    --------
    >>> print(stepwell.why("final"))  # doctest: +SKIP
    final: may change, because LIMIT 3 -> 4 in cell 5, three steps up: clean -> rep.f -> rep.g
    """
    if accept and revoke:
        raise InvalidInvocationError("why takes --accept or --revoke, not both", remedy="%why KEY --accept")
    answer = acceptance.accept if accept else acceptance.revoke if revoke else explain
    return answer(get_session(), key_text(key), definitions=definitions, store=store)
