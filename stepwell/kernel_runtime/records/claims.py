"""Who computes a long step just now: the contents of a claim's file, shown to whoever waits for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claimant:
    """A process that computes a step. Fields are empty or zero where the file did not say."""

    notebook: str = ""
    """The notebook, script or module that started the run."""
    pid: int = 0
    host: str = ""
    since: float = 0.0
    """When it began with the step, in seconds since the epoch."""
