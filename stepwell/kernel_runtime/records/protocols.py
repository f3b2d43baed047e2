"""Protocols between layers, so that no layer imports a higher one; and `Linked`, a value whose objects are stored as links."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from stepwell.kernel_runtime.records.maintenance import Collected, Forgotten, KeySize, Rule, Sizes
from stepwell.kernel_runtime.records.materializations import CodeVersion, Current, Materialization, StoredValue
from stepwell.kernel_runtime.records.runs import CapturedOutput, Claimant, LogRecord, RunRecord, Snapshot, StepRecord

Link: TypeAlias = Callable[[Any], Any]
"""When storing: returns what identifies an object, or None to store it by value. When loading: returns the object."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A value for the store, and what tells which objects in it are links."""

    value: Any
    link: Link


Verify: TypeAlias = Literal["signed", "full"]
"""What a load checks: what would be executed, and sizes; or every byte."""


class Commit(Protocol):
    """The group of rows that something recorded belongs to."""

    def wait(self) -> None:
        """Block until the group is committed; raise the `StoreError` that kept it from being committed."""

    def then(self, callback: Callable[[BaseException | None], None]) -> None:
        """Call ``callback`` on the catalog thread after the commit, with the error if it failed; at once if over."""


class Claim(Protocol):
    """The right to compute a step alone; held until released or until the process ends."""

    def release(self) -> None:
        """Let the next one have it; from any thread, and a second time does nothing."""


class Claims(Protocol):
    """The claims on memo keys that the processes of one store have. Every method may be called from any thread."""

    def is_there(self, memo_key: str) -> bool:
        """Tell quickly whether somebody may hold the claim of a memo key."""

    def take(self, memo_key: str, claimant: Claimant) -> Claim | None:
        """Return the claim of a memo key, or None if somebody else holds it; never waits."""

    def claimant(self, memo_key: str) -> Claimant:
        """Return who holds a claim, as far as that is known."""


class ValueStore(Protocol):
    """Values by content, and the catalog of what is known about them.

    Every method may be called from any thread. Methods that read the catalog block until the answer is there.
    """

    @property
    def directory(self) -> Path:
        """The store directory: the one with ``catalog.duckdb``."""

    @property
    def claims(self) -> Claims:
        """Who computes what just now."""

    # -- values
    def put(
        self,
        value: Any,
        *,
        key: str,
        memo_key: str,
        about: Callable[[], Materialization] | None = None,
        portable: bool = False,
    ) -> StoredValue:
        """Write a value's stored form and return where it is; nothing refers to it until a row does.

        Parameters
        ----------
        about
            Returns what will be recorded of it, except for the value; a file of its own says so in its header.
        portable
            Whether pickle alone must be able to bring the value to another process: the step may run in one.

        Raises
        ------
        UnstorableValueError
            If no codec can bring the value back; names the key, the type and the remedy.
        """

    def get(self, stored: StoredValue, *, key: str, verify: Verify = "signed", link: Link | None = None) -> Any:
        """Load a value: an own copy for the caller unless its type is immutable.

        Parameters
        ----------
        verify
            ``full`` checks every byte; ``signed`` what would be executed, and every byte of a file once since the machine was started.

        Raises
        ------
        ValueUnavailableError
            If it is missing, damaged, not trusted, or names a class that is not there or not the same.
        """

    def obstacle(self, stored: StoredValue, *, key: str) -> str:
        """Return why a value is known not to load, empty if nothing is known; tried only where it failed before or other versions of its libraries wrote it."""

    def sign_record(self, item: Materialization) -> bytes:
        """Return the signature of a whole record, its own column excepted."""

    def vouches(self, item: Materialization) -> bool:
        """Return True if a trusted key signed the whole record."""

    # -- the catalog, written
    def begin_run(self, run: RunRecord) -> Commit:
        """Record that a run started."""

    def record_step(
        self,
        step: StepRecord,
        *,
        current: Sequence[Current] = (),
        code: CodeVersion | None = None,
        outputs: Sequence[CapturedOutput] = (),
        logs: Sequence[LogRecord] = (),
    ) -> Commit:
        """Record one step: its row, for an executed step its materializations (with the parts of its code version
        and what it printed), and what is current from now on. One group commits all of it or none.
        """

    def finish_run(self, run: RunRecord) -> Commit:
        """Record how a run ended."""

    # -- the catalog, read
    def snapshot(
        self,
        keys: Collection[str],
        step_keys: Collection[str],
        code_versions: Collection[str],
        *,
        remember: bool = True,
    ) -> Snapshot:
        """Return what a plan needs in one go: what is current for ``keys``, and the failures, times and
        materializations of ``step_keys``, the last only those with one of ``code_versions``. What is asked in the
        middle of a run is not to be remembered in place of what the next run will ask.
        """

    def is_newest(self, snapshot: Snapshot) -> bool:
        """Tell, without a query, whether no other process wrote since a snapshot was read."""

    def current(self, key: str) -> list[Current]:
        """Return what is current for a key in each notebook that defined it, newest first."""

    def all_current(self) -> list[Current]:
        """Return what is current for every key, by key, newest first: one query; inline values are not read."""

    def run(self, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]] | None:
        """Return a run and its steps in the order of their records, or None."""

    def runs(self, *, limit: int = 20, batch: str = "") -> list[RunRecord]:
        """Return the newest runs, newest first; only those of a batch execution if one is named."""

    def attempts(self, step_key: str, *, limit: int = 20) -> list[StepRecord]:
        """Return the newest records of a step that was executed, reused, failed or cancelled, newest first; of reuses in a row the first."""

    def outputs(self, run_id: str, step_key: str) -> tuple[CapturedOutput, ...]:
        """Return what an executed step printed and displayed."""

    def logs(self, run_id: str, step_key: str = "") -> list[LogRecord]:
        """Return what a run's steps logged, oldest first."""

    def code(self, code_version: str) -> CodeVersion | None:
        """Return the parts of a recorded code version, or None."""

    def codes(self, code_versions: Collection[str]) -> dict[str, CodeVersion]:
        """Return the parts of recorded code versions, by digest: one query."""

    def keys(self) -> list[str]:
        """Return every key that has something current."""

    def history(self, key: str, *, limit: int = 20) -> list[Materialization]:
        """Return the newest materializations of a key, newest first."""

    def writers_of(self, path: str) -> list[Materialization]:
        """Return the records whose effects name a file, newest first."""

    def sizes(self) -> dict[str, int]:
        """Return ``materializations``, ``runs``, ``objects``, ``object_bytes`` and ``catalog_bytes``."""

    def key_sizes(self) -> list[KeySize]:
        """Return what each key takes, the largest first."""

    # -- what is kept
    def rules(self) -> dict[str, Rule]:
        """Return the retention rules that hold, by key; the store's own under the empty key."""

    def keep(self, key: str, rule: Rule) -> None:
        """Set what is kept of a key, or of the whole store where the key is empty; an empty rule takes a rule back."""

    def collect(self, *, dry_run: bool = False, grace: float = 3600.0, compact: bool | None = None) -> Collected:
        """Delete what retention drops, files without a row, and what dead processes left."""

    def forget(self, key: str, *, dry_run: bool = False) -> Forgotten:
        """Remove every version of a key with the steps inside it, and the files that nothing else refers to."""

    def carry_over(
        self,
        made: Sequence[Materialization],
        current: Sequence[Current],
        *,
        steps: Mapping[str, str],
        gone: Sequence[Current] = (),
        code: CodeVersion | None = None,
    ) -> None:
        """Record materializations that are copies of others under another key, and what is current now, all or nothing."""

    def is_there(self, value: StoredValue) -> bool:
        """Tell whether a value's stored form is there; whether it can be loaded only loading it tells."""

    def housekeep(self) -> bool:
        """Do what is due once an hour; tell whether it was."""

    def is_housekeeping_due(self) -> bool:
        """Tell whether `housekeep` would do something; false where the store is gone."""

    def housekept_sizes(self) -> Sizes | None:
        """Return what the last housekeeping found; None before the first."""

    def scratch(self) -> AbstractContextManager[Path]:
        """Give a new folder for temporary files, which is removed at the end."""

    def catalog_sources(self, sources: Collection[str]) -> dict[str, Any]:
        """Return what views of the catalog are made of as Arrow tables, all of one moment."""

    def flush(self) -> None:
        """Block until everything recorded so far is committed."""

    def close(self) -> None:
        """Commit what is pending and let the catalog go; a later call opens it again."""


class CodeVersions(Protocol):
    """Code versions of what a run needs, memoised by object as long as this object lives (one run)."""

    def of(
        self, body: object, *, path: str, extra: Iterable[tuple[str, object]] = (), ignore: tuple[str, ...] = ()
    ) -> CodeVersion:
        """Return the code version of a step's body.

        Parameters
        ----------
        body
            A function, a class, or a body of the definitions (a cell, a SELECT).
        path
            How a reader knows the step: its key.
        extra
            More objects that count, each by a name: what a definition holds beside its body.
        ignore
            Names of globals of the body's own notebook or module, or ``module.NAME``, or attributes
            (``client.cookies``), that do not count.
        """
