"""What the magics of one kernel share: the shell, the session, the settings, the bindings, and the cell that is running."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition
from stepwell.kernel_runtime.definitions.jobs import JobDefinition
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.session.kernel import DEFINE
from stepwell.kernel_runtime.text import printable
from stepwell.magics.displays import DisplayHook, Figures

_CODE: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (OpDefinition, "an op"),
    (GraphDefinition, "a graph"),
    (JobDefinition, "a job"),
    ((AssetsDefinition, SourceAsset), "an asset definition"),
    (type, "a class"),
    (ModuleType, "a module"),
    ((FunctionType, BuiltinFunctionType, MethodType), "a function"),
)


@dataclass(slots=True)
class Face:
    """The notebook's face of a session.

    Attributes
    ----------
    settings
        The traits of ``%config Stepwell``.
    read_before
        By the origin of a cell, which asset each name was that it read when it ran last.
    """

    shell: Any
    session: Any
    settings: Any
    displays: DisplayHook
    figures: Figures = field(default_factory=Figures)
    running: Any = None
    """What IPython says of the cell that is running; None between cells."""
    read_before: dict[str, dict[str, AssetKey]] = field(default_factory=dict)
    progress: Any = None
    """The line about a run that is updated while it lasts, where there is one."""
    composed: dict[int, Callable[..., Any]] = field(default_factory=dict)
    """By the identity of a composition's body, what composes it; each keeps its body."""

    @property
    def namespace(self) -> dict[str, Any]:
        """The notebook's variables."""
        found: dict[str, Any] = self.shell.user_ns
        return found

    @property
    def timeline(self) -> Timeline:
        """What happened to the notebook's variables."""
        found = self.session.timeline
        assert isinstance(found, Timeline)
        return found

    @property
    def interactive(self) -> bool:
        """Whether a person waits for the cell."""
        return not os.environ.get("STEPWELL_BATCH")

    @property
    def defines_only(self) -> bool:
        """Whether the notebook's definitions are only registered in this kernel."""
        return bool(os.environ.get(DEFINE))

    def say(self, line: str) -> None:
        """Print one line about a run, unless such lines are turned off."""
        if self.settings.lines:
            say(line)

    def code_at(self, name: str) -> str:
        """Return which kind of code a name means, such as ``an op``, that a command must not bind over; empty if it may."""
        if name not in self.namespace:
            return "a magic" if any(self.shell.find_magic(name, kind) for kind in ("line", "cell")) else ""
        value = self.namespace[name]
        return next((kind for types, kind in _CODE if isinstance(value, types)), "")

    def is_definition(self, name: str) -> bool:
        """Whether a variable is an op, a graph or an alias: what a composition calls."""
        value = self.namespace.get(name)
        return (
            callable(value)
            and hasattr(type(value), "__stepwell_body__")
            and not hasattr(type(value), "__stepwell_asset_key__")
        )


def say(line: str) -> None:
    """Print a line for the person at the notebook."""
    sys.stdout.write(printable(line) + "\n")
    sys.stdout.flush()
