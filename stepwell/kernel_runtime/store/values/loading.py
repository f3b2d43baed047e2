"""What loading a value needs beside its stored form."""

from __future__ import annotations

from dataclasses import dataclass, field

from stepwell.kernel_runtime.records.events import Notice, Notify
from stepwell.kernel_runtime.records.materializations import Link
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.values.code_copies import CodeReader
from stepwell.kernel_runtime.store.values.libraries import Library


def silent(found: Notice) -> None:
    """Give the notice to nobody."""
    del found


@dataclass(frozen=True, slots=True)
class Loading:
    """Where a value is loaded: who reads code, who is told, which store, and what wrote the value."""

    code: CodeReader = field(default_factory=CodeReader)
    tell: Notify = silent
    folder: Folder | None = None
    """The store directory; below it the contents of files are restored."""
    written: tuple[Library, ...] = ()
    check: bool = True
    """Whether the structure of the data is validated: it need not be if this file was checked since the machine was started."""
    link: Link | None = None
    """Returns the object that a link in the value means."""
