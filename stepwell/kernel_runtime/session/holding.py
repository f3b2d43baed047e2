"""What a session holds: the registry, stores by directory, the notebook's namespace, subscribers to events."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.registry import Registry
from stepwell.kernel_runtime.errors import (
    StoreError,
)
from stepwell.kernel_runtime.execution.interrupts import InterruptGuard
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.reads import watch
from stepwell.kernel_runtime.records.events import DefinitionsChanged, Event, Notice, Subscriber
from stepwell.kernel_runtime.session.project import in_ipython, notebook_name, project_directory, store_directory
from stepwell.kernel_runtime.store.catalog.instance import at_end
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.versions.classes import remember_copy
from stepwell.kernel_runtime.versions.data import data_version, definition_version, hides
from stepwell.kernel_runtime.versions.environment import Keyed, process_keyed
from stepwell.kernel_runtime.versions.ownership import owner

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.doctor.contents import Finding, Progress
    from stepwell.kernel_runtime.store.store import ValueStore


class Holding:
    """The registry, the stores and the subscribers of one kernel or process.

    Parameters
    ----------
    registry
        What is defined; an empty one if none is given.

    Attributes
    ----------
    namespace
        The notebook's namespace; None where there is no notebook.
    timeline
        What happened to its names; None where there is no notebook.
    last_run
        The result of the newest run, also of one that failed; None before the first.
    seed_steps
        Whether the global random generators are seeded from the step's key before each body.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        # A registry tells one session what changes: only the process's own takes the one that decorators register with.
        registry = self.registry = Registry() if registry is None else registry
        self.namespace: dict[str, Any] | None = None
        self.timeline: Timeline | None = None
        self.last_run: RunResult | None = None
        self.seed_steps = True
        self.face = ""
        """Which face gives notices to the person: ``python`` or ``notebook``; empty before any does."""
        self._store: ValueStore | None = None
        self._stores: dict[Path, ValueStore] = {}
        self._subscribers: list[Subscriber] = []
        self._noticed: set[Notice] = set()
        self._slow: set[str] = set()
        """Globals that take long to digest, of which a notice was given."""
        self._not_settled: set[tuple[str, str]] = set()
        self._pending: list[Notice] | None = None
        """Notices that a run gives at its end; None where none is going on."""
        self._opening = threading.RLock()
        self._running = threading.Lock()
        self._guard: InterruptGuard | None = None
        self._run_thread = 0
        self._run_store: ValueStore | None = None
        registry.notebook = lambda: self.notebook
        registry.changed = lambda keys: self.publish(DefinitionsChanged(keys))

    # -- what it holds

    @property
    def store(self) -> ValueStore:
        """The session's store, opened at first use: the project's in IPython, a throw-away one in a plain process."""
        if self._store is not None:
            return self._store
        with self._opening:
            if self._store is not None:
                # Another thread was quicker.
                return self._store
            if in_ipython() or self.namespace is not None or os.environ.get("STEPWELL_STORE"):
                directory, named = store_directory(self.namespace)
                self._store = self.open(directory, follow=named)
            else:
                folder = tempfile.mkdtemp(prefix="stepwell-")
                at_end(partial(shutil.rmtree, folder, ignore_errors=True), last=True)
                self._store = self.open(Path(folder) / "store")
        return self._store

    def open(self, path: str | os.PathLike[str], *, create: bool = True, follow: bool = True) -> ValueStore:
        """Return the open store of a directory; one per directory and process.

        Parameters
        ----------
        path
            The store directory.
        create
            Make it if it is not there.
        follow
            Whether the path may be a link to a directory: where the user named this very path.

        Raises
        ------
        StoreError
            If the store cannot be used.
        """
        from stepwell.kernel_runtime.store.sql import instance as sql_instance
        from stepwell.kernel_runtime.store.store import open_store
        from stepwell.kernel_runtime.store.values.loading import CodeReader

        directory = Path(path).absolute()
        sql_instance.expect(directory)
        with self._opening:
            found = self._stores.get(directory)
            if found is None:
                found = self._stores[directory] = open_store(
                    directory,
                    create=create,
                    follow=follow,
                    code=CodeReader(definition_version, owner, hides, remember_copy, data_version),
                    tell=self.notify,
                )
        return found

    def use(self, path: str | os.PathLike[str]) -> ValueStore:
        """Switch the session to another store and return it."""
        self._store = self.open(path)
        # Every state is another one now.
        self.publish(DefinitionsChanged(()))
        return self._store

    def chosen(self, store: Any, *, create: bool = False) -> ValueStore:
        """Return a store given as a directory or open, or the session's; a directory is made only where `create` says so."""
        if store is None:
            return self.store
        if isinstance(store, str | os.PathLike):
            return self.open(store, create=create)
        # The public `Store` holds the runtime's.
        found: ValueStore = getattr(store, "values", store)
        return found

    @property
    def notebook(self) -> str:
        """The name under which definitions of ``__main__`` are recorded."""
        base = self._store.directory if self._store is not None else store_directory(self.namespace)[0]
        return notebook_name(base, self.namespace)

    def doctor(
        self,
        *,
        store: Any = None,
        full: bool = True,
        clean: bool = False,
        rebuild: bool = False,
        progress: Progress | None = None,
    ) -> list[Finding]:
        """Check a store and its surroundings; return what is found, each with what to do.

        Parameters
        ----------
        store
            A directory or an open store, also one that cannot be opened; by default the session's.
        full
            Whether every byte of every value file is checked.
        clean
            Whether what is surely garbage is removed.
        rebuild
            Whether the catalog is made anew of what can be read of it and of the value files' headers.
        progress
            Called with the value files done, their number, and the bytes done.

        Raises
        ------
        StoreError
            If there is no store.
        """
        from stepwell.kernel_runtime.store.doctor.examination import examine

        named = True
        if store is None and self._store is None:
            directory, named = store_directory(self.namespace)
        elif store is None or not isinstance(store, str | os.PathLike):
            directory = (store or self.store).directory
        else:
            directory = Path(store).absolute()
        for each in self._stores.values():
            each.close()
        return list(examine(directory, follow=named, full=full, clean=clean, mend=rebuild, progress=progress))

    def attach(self, namespace: dict[str, Any] | None) -> None:
        """Say which namespace is the notebook's."""
        if namespace is not None:
            # Seeding is noted from now on, in plain cells too.
            watch()
        if namespace is not self.namespace or self.timeline is None:
            self.timeline = (
                Timeline(namespace, self._load_current, project_directory(namespace)) if namespace is not None else None
            )
        self.namespace = namespace

    def _load_current(self, key: str) -> Any:
        raise NotImplementedError

    def leave_others_run(self) -> None:
        """Forget, in a forked child, a run of another thread: that goes on in the parent only."""
        self._opening = threading.RLock()
        if self._running.locked() and self._run_thread != threading.get_ident():
            self._running = threading.Lock()
            self._guard = None
            self._run_store = None

    def close(self) -> None:
        """Commit what is pending and let every store go."""
        for store in self._stores.values():
            store.close()

    def notify(self, found: Notice) -> None:
        """Give a notice, once per session: with the result of the run that is going on, else at once."""
        if found in self._noticed:
            return
        self._noticed.add(found)
        if self._pending is not None:
            self._pending.append(found)
        else:
            self.publish(found)

    # -- events

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call a function with every event; return what ends that. A step's end may come from the catalog's thread."""
        self._subscribers.append(subscriber)

        def end() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return end

    def publish(self, event: Event) -> None:
        """Hand an event to every subscriber; one that fails does not keep the others from it."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception as error:
                print(f"stepwell: {getattr(subscriber, '__qualname__', subscriber)} failed: {error!r}", file=sys.stderr)  # noqa: T201 - the run must go on, and this must be seen


def users_digest() -> Keyed:
    """Return what digests with this user's key; with a key of this process where there is none."""
    signer = Signer()

    def keyed(data: bytes) -> str:
        try:
            return signer.keyed(data)
        except StoreError:
            return process_keyed(data)

    return keyed
