"""``stepwell.secret("API_TOKEN")``: a text from the environment that is used like any text, and kept by its name only."""

from __future__ import annotations

from typing import Any, Self

from stepwell.kernel_runtime.errors import SecretNotSetError
from stepwell.kernel_runtime.versions.environment import note_name, value_of


class Secret(str):
    """A text that shows, and is pickled as, its name in the environment.

    Attributes
    ----------
    name
        The name in the environment.
    counts
        Whether another text makes what reaches it stale.
    """

    __slots__ = ("counts", "name")
    name: str
    counts: bool

    def __new__(cls, text: str, name: str, *, counts: bool) -> Self:
        """Make a secret of its text."""
        made = super().__new__(cls, text)
        made.name = name
        made.counts = counts
        return made

    def __repr__(self) -> str:
        return f"secret({self.name!r}{', counts=True' if self.counts else ''})"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _again, (self.name, self.counts)


def _again(name: str, counts: bool) -> Secret:
    return secret(name, counts=counts)


def secret(name: str, *, counts: bool = False) -> Secret:
    """Read a secret from the environment; it is never stored or shown as text.

    Parameters
    ----------
    name
        The name in the environment.
    counts
        Whether another value makes what reaches it stale; told by a digest with the user's key.

    Raises
    ------
    SecretNotSetError
        If the name is not set.
    """
    found = value_of(name)
    if counts:
        note_name(name, found)
    if found is None:
        raise SecretNotSetError(
            f"the secret {name!r} is not set in the environment",
            remedy=f"set {name} before the kernel starts, or in a cell: import getpass, os; os.environ[{name!r}] = getpass.getpass()",
        )
    return Secret(found, name, counts=counts)
