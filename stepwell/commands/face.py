"""Python as a face: the session that the functions of commands use gives its notices as warnings where no notebook shows them."""

from __future__ import annotations

from stepwell.commands.wording import listen
from stepwell.kernel_runtime.session import kernel


def get_session() -> kernel.Session:
    """Return this process's session, with somebody who hears its notices."""
    session = kernel.get_session()
    listen(session)
    return session
