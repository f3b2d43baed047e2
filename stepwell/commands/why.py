"""``why``: the state of an asset or step, and its causes."""

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
    """Explain the state of an asset or step, and why it was last executed.

    Causes are followed upstream to their origin. If the key is stored but not defined, because its cell has not run in this session, the
    store's records explain it.

    Parameters
    ----------
    key
        An asset or a step.
    accept
        Accept the edit: the stored value stays valid for the present code, inputs and files.
    revoke
        Undo the newest acceptance.
    definitions
        Definitions, or a module of definitions, that take precedence over registered ones.
    store
        A store directory or an open store; by default the session's.

    Returns
    -------
    Explanation
        The states of the steps, with causes, and the last run of each.

    Raises
    ------
    UnknownKeyError
        If nothing has this key.
    ValueUnavailableError, InvariantViolationError
        If the edit cannot be accepted, or there is no acceptance to revoke.

    Examples
    --------
    >>> print(stepwell.why("final"))  # doctest: +SKIP
    final: may change, because LIMIT 3 -> 4 in cell 5, three steps up: clean -> rep.f -> rep.g
    """
    if accept and revoke:
        raise InvalidInvocationError(
            "why takes --accept or --revoke, not both",
            remedy="give one of them: %why KEY --accept, or %why KEY --revoke",
        )
    action = acceptance.accept if accept else acceptance.revoke if revoke else explain
    return action(get_session(), key_text(key), definitions=definitions, store=store)
