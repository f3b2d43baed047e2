"""An edit that its user marked as not mattering: a materialization that names what it was accepted for.

It is a row like any other, with the value of the one before it under the new memo key, and another row takes it back:
nothing in the catalog is changed. Both say so in their metadata, under names of ours.
"""

from __future__ import annotations

from typing import Any

from stepwell.kernel_runtime.records.materializations import Materialization

ACCEPTED = "stepwell:accepted"
"""``{"on": time as text, "of": id, "run_id": id, "causes": [texts], "unverifiable": [path: reason]}``."""
REVOKED = "stepwell:revoked"
"""The run of the acceptance that is taken back."""


def acceptance(item: Materialization) -> dict[str, Any] | None:
    """Return what is said of the acceptance that made a materialization; None for one that a step made."""
    found = item.metadata.get(ACCEPTED) if item.metadata else None
    return found if isinstance(found, dict) else None


def revoked_run(item: Materialization) -> str:
    """Return the run of the acceptance that a row takes back; empty for any other row."""
    return str(item.metadata.get(REVOKED, "")) if item.metadata else ""
