"""Software-defined assets, ops and graphs that live in the notebook kernel.

``%load_ext stepwell`` in a notebook; ``stepwell.materialize([...], store="dir")`` anywhere. Every public name is loaded at its
first use, so that ``import stepwell`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.kernel_runtime.definitions.assets import AssetsDefinition as AssetsDefinition
    from stepwell.kernel_runtime.definitions.assets import SourceAsset as SourceAsset
    from stepwell.kernel_runtime.definitions.declarations import AssetIn as AssetIn
    from stepwell.kernel_runtime.definitions.declarations import AssetOut as AssetOut
    from stepwell.kernel_runtime.definitions.declarations import GraphOut as GraphOut
    from stepwell.kernel_runtime.definitions.declarations import In as In
    from stepwell.kernel_runtime.definitions.declarations import Nothing as Nothing
    from stepwell.kernel_runtime.definitions.declarations import Out as Out
    from stepwell.kernel_runtime.definitions.declarations import Output as Output
    from stepwell.kernel_runtime.definitions.decorators import asset as asset
    from stepwell.kernel_runtime.definitions.decorators import graph_asset as graph_asset
    from stepwell.kernel_runtime.definitions.decorators import multi_asset as multi_asset
    from stepwell.kernel_runtime.definitions.graphs import GraphDefinition as GraphDefinition
    from stepwell.kernel_runtime.definitions.graphs import graph as graph
    from stepwell.kernel_runtime.definitions.jobs import JobDefinition as JobDefinition
    from stepwell.kernel_runtime.definitions.jobs import job as job
    from stepwell.kernel_runtime.definitions.ops import OpDefinition as OpDefinition
    from stepwell.kernel_runtime.definitions.ops import op as op
    from stepwell.kernel_runtime.errors import StepwellError as StepwellError
    from stepwell.kernel_runtime.execution.contexts import AssetExecutionContext as AssetExecutionContext
    from stepwell.kernel_runtime.execution.contexts import OpExecutionContext as OpExecutionContext
    from stepwell.kernel_runtime.execution.result import RunResult as RunResult
    from stepwell.kernel_runtime.records.keys import AssetKey as AssetKey
    from stepwell.kernel_runtime.session.functions import last_run as last_run
    from stepwell.kernel_runtime.session.functions import load as load
    from stepwell.kernel_runtime.session.functions import materialize as materialize
    from stepwell.kernel_runtime.session.functions import open_store as open_store
    from stepwell.kernel_runtime.session.functions import rerun as rerun
    from stepwell.kernel_runtime.session.functions import resume as resume
    from stepwell.kernel_runtime.session.functions import sql as sql
    from stepwell.kernel_runtime.session.keeping import diff as diff
    from stepwell.kernel_runtime.session.keeping import doctor as doctor
    from stepwell.kernel_runtime.session.keeping import forget as forget
    from stepwell.kernel_runtime.session.keeping import gc as gc
    from stepwell.kernel_runtime.session.keeping import keep as keep
    from stepwell.kernel_runtime.session.keeping import rename as rename
    from stepwell.kernel_runtime.session.keeping import versions as versions
    from stepwell.kernel_runtime.session.kernel import get_session as get_session
    from stepwell.kernel_runtime.session.selects import sql_asset as sql_asset
    from stepwell.kernel_runtime.session.sharing import pack as pack
    from stepwell.kernel_runtime.session.sharing import trust as trust
    from stepwell.kernel_runtime.versions.left_out import opaque as opaque
    from stepwell.kernel_runtime.versions.left_out import secret as secret

_RUNTIME = "stepwell.kernel_runtime."
_HOMES = {
    "AssetExecutionContext": "execution.contexts",
    "AssetIn": "definitions.declarations",
    "AssetKey": "records.keys",
    "AssetOut": "definitions.declarations",
    "AssetsDefinition": "definitions.assets",
    "GraphDefinition": "definitions.graphs",
    "GraphOut": "definitions.declarations",
    "In": "definitions.declarations",
    "JobDefinition": "definitions.jobs",
    "Nothing": "definitions.declarations",
    "OpDefinition": "definitions.ops",
    "OpExecutionContext": "execution.contexts",
    "Out": "definitions.declarations",
    "Output": "definitions.declarations",
    "RunResult": "execution.result",
    "SourceAsset": "definitions.assets",
    "StepwellError": "errors",
    "asset": "definitions.decorators",
    "diff": "session.keeping",
    "doctor": "session.keeping",
    "forget": "session.keeping",
    "gc": "session.keeping",
    "get_session": "session.kernel",
    "graph": "definitions.graphs",
    "graph_asset": "definitions.decorators",
    "job": "definitions.jobs",
    "keep": "session.keeping",
    "last_run": "session.functions",
    "load": "session.functions",
    "materialize": "session.functions",
    "multi_asset": "definitions.decorators",
    "op": "definitions.ops",
    "opaque": "versions.left_out",
    "open_store": "session.functions",
    "pack": "session.sharing",
    "rename": "session.keeping",
    "rerun": "session.functions",
    "resume": "session.functions",
    "secret": "versions.left_out",
    "sql": "session.functions",
    "sql_asset": "session.selects",
    "trust": "session.sharing",
    "versions": "session.keeping",
    "why": "session.functions",
}
"""Where each public name lives below the kernel runtime."""

__version__ = "0.1.0"
__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension", *sorted(_HOMES)]  # noqa: PLE0604 - names, all strings


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("stepwell.errors")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stepwell' has no attribute {name!r}")
    module = import_module(_RUNTIME + home)
    found = globals()[name] = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(ipython: Any) -> None:
    """Load the magics: ``%load_ext stepwell``."""
    from stepwell.magics.extension import load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Take the magics away again: ``%unload_ext stepwell``."""
    from stepwell.magics.extension import unload

    unload(ipython)


def _fill_slot() -> None:
    from stepwell.kernel_runtime.definitions.jobs import load_runner

    def runner() -> Any:
        from stepwell.kernel_runtime.session.runner import SessionRunner

        return SessionRunner()

    load_runner(runner)


_fill_slot()
