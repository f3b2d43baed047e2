"""Jobs: graphs that run for their effects; and the one upward reference, to what can execute a definition or load a value.

``job.execute()`` and ``asset.load()`` are methods of definitions, and definitions do not know the session. On import, the package fills
`load_runner` with a function that imports the session at first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, overload

from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, graph_of
from stepwell.kernel_runtime.errors import InvariantViolationError


class Runner(Protocol):
    """What a definition asks of the session."""

    def execute_job(self, job: Any, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Run a job and return its result."""

    def load(self, key: str, *, store: Any = None) -> Any:
        """Return the current value of a key."""

    def register(self, definition: Any) -> None:
        """Take note of a definition made in ``__main__``."""


_loader: Callable[[], Runner] | None = None


def load_runner(loader: Callable[[], Runner]) -> None:
    """Say how the session is reached."""
    global _loader  # noqa: PLW0603 - one session per process
    _loader = loader


def runner() -> Runner:
    """Return the session's face towards definitions."""
    if _loader is None:
        raise InvariantViolationError("nothing can execute definitions here", remedy="import stepwell first")
    return _loader()


class JobDefinition:
    """A graph that can be executed.

    Attributes
    ----------
    graph
        What it runs.
    """

    def __init__(self, graph: GraphDefinition, *, tags: Mapping[str, str] | None = None) -> None:
        self.graph = graph
        self.name = graph.name
        self.description = graph.description
        self.where = graph.where
        self.tags = dict(tags or {})
        self.notebook = ""
        """The notebook or module that defined it, filled in by the registry."""
        self.module = ""

    @property
    def __stepwell_body__(self) -> object:
        """What its code version is made from."""
        return self.graph.source

    def execute(self, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Run the job and return its result.

        Parameters
        ----------
        store
            A store directory or an open store; by default the session's.
        raise_on_error
            Whether an exception of the user's code is raised again after the run is recorded.
        """
        return runner().execute_job(self, store=store, raise_on_error=raise_on_error)

    execute_in_process = execute

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a job is executed, not called."""
        del args, kwargs
        raise InvariantViolationError(
            f"the job {self.name!r} is called", where=self.where, remedy=f"run it with {self.name}.execute()"
        )

    def __repr__(self) -> str:
        return f"<job {self.name}: {', '.join(self.graph.nodes)}>"


@overload
def job(compose_fn: Callable[..., Any]) -> JobDefinition: ...
@overload
def job(
    compose_fn: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], JobDefinition]: ...
def job(
    compose_fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> JobDefinition | Callable[[Callable[..., Any]], JobDefinition]:
    """Make a job of a function that calls ops and graphs; source assets passed to them are read as they are stored.

    Parameters
    ----------
    name
        By default the function's.

    Raises
    ------
    InvalidDefinitionError
        See SEMANTICS, section 1, composition.
    """

    def decorate(function: Callable[..., Any]) -> JobDefinition:
        made = JobDefinition(
            graph_of(function, name=name, kind="job", declared=None, description=description), tags=tags
        )
        made.module = getattr(function, "__module__", "") or ""
        if made.module == "__main__":
            runner().register(made)
        return made

    return decorate(compose_fn) if compose_fn is not None else decorate
