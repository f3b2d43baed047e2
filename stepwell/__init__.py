"""Assets, ops and graphs for notebooks: values are computed once, stored, and reused as long as nothing that affects them changes.

Use ``%load_ext stepwell`` in a notebook, and ``stepwell.materialize([...], store="dir")`` in a script. The module of a public name is imported
when the name is first used, so that ``import stepwell`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.batch.run import run as run
    from stepwell.commands.check import check as check
    from stepwell.commands.code import code as code
    from stepwell.commands.diff import diff as diff
    from stepwell.commands.doctor import doctor as doctor
    from stepwell.commands.forget import forget as forget
    from stepwell.commands.gc import gc as gc
    from stepwell.commands.inputs import inputs as inputs
    from stepwell.commands.keep import keep as keep
    from stepwell.commands.lineage import lineage as lineage
    from stepwell.commands.load import load as load
    from stepwell.commands.logs import logs as logs
    from stepwell.commands.materialize import materialize as materialize
    from stepwell.commands.pack import pack as pack
    from stepwell.commands.rename import rename as rename
    from stepwell.commands.rerun import rerun as rerun
    from stepwell.commands.resume import resume as resume
    from stepwell.commands.runs import runs as runs
    from stepwell.commands.sql import sql as sql
    from stepwell.commands.status import status as status
    from stepwell.commands.store import Store as Store
    from stepwell.commands.store import open_store as open_store
    from stepwell.commands.trust import trust as trust
    from stepwell.commands.versions import versions as versions
    from stepwell.commands.why import why as why
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
    from stepwell.kernel_runtime.definitions.decorators import sql_asset as sql_asset
    from stepwell.kernel_runtime.definitions.graphs import GraphDefinition as GraphDefinition
    from stepwell.kernel_runtime.definitions.graphs import JobDefinition as JobDefinition
    from stepwell.kernel_runtime.definitions.graphs import graph as graph
    from stepwell.kernel_runtime.definitions.graphs import job as job
    from stepwell.kernel_runtime.definitions.ops import OpDefinition as OpDefinition
    from stepwell.kernel_runtime.definitions.ops import op as op
    from stepwell.kernel_runtime.errors import StepwellError as StepwellError
    from stepwell.kernel_runtime.execution.in_process import AssetExecutionContext as AssetExecutionContext
    from stepwell.kernel_runtime.execution.in_process import OpExecutionContext as OpExecutionContext
    from stepwell.kernel_runtime.execution.result import RunResult as RunResult
    from stepwell.kernel_runtime.records.keys import AssetKey as AssetKey
    from stepwell.kernel_runtime.session.session import get_session as get_session
    from stepwell.kernel_runtime.session.session import last_run as last_run
    from stepwell.kernel_runtime.versions.left_out import opaque as opaque
    from stepwell.kernel_runtime.versions.left_out import secret as secret

_RUNTIME = "stepwell.kernel_runtime."
_VERBS = (
    "check", "code", "diff", "doctor", "forget", "gc", "inputs", "keep", "lineage", "load", "logs", "materialize", "pack", "rename", "rerun", "resume", "runs", "sql", "status", "trust", "versions", "why",
)  # fmt: skip
"""The public names that are commands, except ``run``. The command ``NAME`` is the function ``NAME`` of the module ``stepwell.commands.NAME``."""
_HOMES = {
    "AssetExecutionContext": "execution.in_process",
    "AssetIn": "definitions.declarations",
    "AssetKey": "records.keys",
    "AssetOut": "definitions.declarations",
    "AssetsDefinition": "definitions.assets",
    "GraphDefinition": "definitions.graphs",
    "GraphOut": "definitions.declarations",
    "In": "definitions.declarations",
    "JobDefinition": "definitions.graphs",
    "Nothing": "definitions.declarations",
    "OpDefinition": "definitions.ops",
    "OpExecutionContext": "execution.in_process",
    "Out": "definitions.declarations",
    "Output": "definitions.declarations",
    "RunResult": "execution.result",
    "SourceAsset": "definitions.assets",
    "StepwellError": "errors",
    "asset": "definitions.decorators",
    "get_session": "session.session",
    "graph": "definitions.graphs",
    "graph_asset": "definitions.decorators",
    "last_run": "session.session",
    "job": "definitions.graphs",
    "multi_asset": "definitions.decorators",
    "op": "definitions.ops",
    "opaque": "versions.left_out",
    "secret": "versions.left_out",
    "sql_asset": "definitions.decorators",
}
"""Maps each public name that the kernel runtime defines to the module that defines it, relative to ``stepwell.kernel_runtime``."""

_OUTSIDE = {
    "Store": "stepwell.commands.store",
    "open_store": "stepwell.commands.store",
    "run": "stepwell.batch.run",
}
"""Maps each public name that is neither in `_HOMES` nor in `_VERBS` to the module that defines it."""

__version__ = "0.1.0"
__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension", *sorted((*_HOMES, *_OUTSIDE, *_VERBS))]  # noqa: PLE0604 - names, all strings


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("stepwell.errors")
    home = _OUTSIDE.get(name) or (f"stepwell.commands.{name}" if name in _VERBS else None)
    if home is None and name in _HOMES:
        home = _RUNTIME + _HOMES[name]
    if home is None:
        raise AttributeError(f"module 'stepwell' has no attribute {name!r}")
    module = import_module(home)
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(ipython: Any) -> None:
    """Install the magics in IPython's shell. IPython calls this function for ``%load_ext stepwell``."""
    from stepwell.magics.extension import load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Remove the magics from IPython's shell. IPython calls this function for ``%unload_ext stepwell``."""
    from stepwell.magics.extension import unload

    unload(ipython)


def _fill_slot() -> None:
    """Give the modules in ``kernel_runtime/definitions`` a function that imports the session, because these modules must not import it.

    The modules call the function when ``job.execute()`` or ``asset.load()`` needs the session.
    """
    from stepwell.kernel_runtime.definitions.graphs import load_runner

    def runner() -> Any:
        from stepwell.commands.wording import get_session
        from stepwell.kernel_runtime.session.session import SessionRunner

        return SessionRunner(get_session)

    load_runner(runner)


_fill_slot()
