"""Whether what a step read is still the same."""

from __future__ import annotations

import os

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.reads import file_state
from stepwell.kernel_runtime.reads.file_state import ABSENT, UNSTABLE, file_digest, file_stat, status
from stepwell.kernel_runtime.records.materializations import LOCAL, Read
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.environment import (
    ALL,
    Keyed,
    all_digest,
    name_digest,
    process_keyed,
    value_of,
    whole,
)
from stepwell.kernel_runtime.versions.library_state import FOLDER, state_digest
from stepwell.kernel_runtime.versions.queries import IN_CONNECTION


def read_holds(read: Read, keyed: Keyed | None = None) -> bool:
    """Tell whether what a step read is still the same.

    A file is compared by size, times and inode, and by content where these differ or were too recent; everything else by digest. An
    asset that was loaded never holds here: only who has the store can tell.

    Parameters
    ----------
    keyed
        Digests values of the environment with the key that the recorder was given.
    """
    if read.digest == UNSTABLE:
        return False
    if read.kind == "absent":
        return not os.path.exists(read.name)  # noqa: PTH110 - quicker
    if read.kind == "file":
        return _file_holds(read)
    if read.kind == "status":
        return status(read.name, read.names[0]) == read.digest
    if read.kind == "listing":
        names = file_state.folder_names(read.name)
        return names is not None and file_state.names_digest(names, read.own) == read.digest
    if read.kind == "glob":
        return file_state.names_digest(file_state.matches(read.name), read.own) == read.digest
    if read.kind == "state":
        return state_digest(read.name, data_version) == read.digest
    if read.kind in LOCAL:
        # Only the notebook's kernel can tell.
        return False
    if read.kind == "environment":
        keyed = keyed or process_keyed
        try:
            if read.name == ALL:
                return all_digest(whole(), keyed, read.own) == read.digest
            return name_digest(read.name, value_of(read.name), keyed) == read.digest
        except StoreError:
            return False
    return False


def _file_holds(read: Read) -> bool:
    now = file_stat(read.name)
    if now is None:
        return False
    if read.stat:
        if tuple(read.stat) == now:
            return True
        if read.stat[0] != now[0]:
            return False
    return file_digest(read.name) == read.digest


def what_changed(read: Read) -> str:
    """Say in words how the world differs from a read that does not hold; of the environment only the name."""
    if read.kind == "environment":
        return _other_environment(read)
    if read.kind == "name":
        return f"the variable {read.name}, which a text of it names, changed"
    if read.kind == "stream":
        return f"the random numbers of {read.name} start from another state: a seed was changed, or other code draws before it"
    if read.digest == UNSTABLE:
        return f"{read.name} changed while the step ran"
    if read.kind == "absent":
        return f"{read.name} is there now"
    if read.kind == "file":
        return f"{read.name} changed" if os.path.exists(read.name) else f"{read.name} is gone"  # noqa: PTH110 - as above
    if read.kind == "status":
        return f"{read.name} {_other_status(read)}"
    if read.kind == "listing":
        names = file_state.folder_names(read.name)
        if names is None:
            return f"the folder {read.name} is gone"
        return f"the names in {read.name} changed" + _difference(read, names)
    if read.kind == "glob":
        return f"the files that match {read.name} changed" + _difference(read, file_state.matches(read.name))
    if read.kind == "state":
        return _other_state(read.name)
    return f"the value of {read.name}, which it loads, changed"


def _other_environment(read: Read) -> str:
    if read.digest == UNSTABLE:
        return "it read the environment, which could not be compared: the user's key could not be read"
    if read.name == ALL:
        return "the environment, which it reads as a whole, changed"
    now = "is set now" if not read.digest else "is not set any more" if value_of(read.name) is None else "changed"
    return f"the environment name {read.name} {now}"


def _other_state(name: str) -> str:
    if name.startswith(IN_CONNECTION):
        return f"what duckdb's own connection holds as {name.removeprefix(IN_CONNECTION)} changed"
    name = name.removesuffix(" text")
    return f"the {name} changed" if name in {FOLDER, "time zone", "locale"} else f"options of {name} changed"


def _other_status(read: Read) -> str:
    aspect = read.names[0]
    if aspect.startswith("access "):
        return "may be used otherwise than before: its permissions changed"
    before, now = read.digest.split(), status(read.name, aspect).split()
    if now[0] != before[0]:
        return (
            "is gone"
            if now[0] == ABSENT
            else "is there now"
            if before[0] == ABSENT
            else f"is a {now[0]} now, not a {before[0]}"
        )
    if aspect == "size" or (aspect == "stat" and now[1] != before[1]):
        return f"has another size: {int(now[1]):,} bytes, not {int(before[1]):,}"
    return "has another time of change"


def _difference(read: Read, now: list[str]) -> str:
    if not read.names:
        return ""
    left = [name for name in now if name not in read.own]
    added, removed = sorted(set(left) - set(read.names)), sorted(set(read.names) - set(left))
    return ": " + "; ".join(f"{word} {_few(names)}" for word, names in (("new", added), ("gone", removed)) if names)


def _few(names: list[str]) -> str:
    shown = ", ".join(os.path.basename(name) for name in names[:3])  # noqa: PTH119 - as above
    return shown + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
