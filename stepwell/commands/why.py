"""The command ``why``, which explains the state of an asset or step."""

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

    If the cause is a change upstream, the explanation names the upstream step and the change. If the asset or step is stored but not defined
    in this process, for example because its cell has not run yet, the explanation comes from the records in the store.

    Parameters
    ----------
    key
        An asset or step.
    accept
        Accept the changes that make the asset or step stale: its stored value becomes valid for the present code, inputs and files.
    revoke
        Undo the newest acceptance of the asset or step.
    definitions
        Definitions to use in addition to the registered ones, or a module that contains them; by default none. They take precedence over registered
        definitions with the same keys.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Explanation
        The state of each step of the asset, the causes, and the reason for the last execution.

    Raises
    ------
    UnknownKeyError
        If the key is neither defined nor stored.
    ValueUnavailableError, InvariantViolationError
        If the changes cannot be accepted, or there is no acceptance to revoke.

    Examples
    --------
    >>> print(stepwell.why("final"))  # doctest: +SKIP
    final: may change, because LIMIT 3 -> 4 in cell 5, three steps up: clean -> rep.f -> rep.g
    """
    if accept and revoke:
        raise InvalidInvocationError(
            "why takes --accept or --revoke, not both",
            remedy="remove one of them: %why KEY --accept, or %why KEY --revoke",
        )
    action = acceptance.accept if accept else acceptance.revoke if revoke else explain
    return action(get_session(), key_text(key), definitions=definitions, store=store)
