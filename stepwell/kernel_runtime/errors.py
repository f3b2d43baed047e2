"""The errors of Stepwell, with one class per failure that a caller could handle differently.

A message has up to three lines: the failure, its location, and the remedy. IPython shows only these lines and no traceback
(``_render_traceback_``), because a traceback would show only Stepwell's code below the user's cell. If another exception caused the error,
that exception is the error's ``__cause__``. An exception that the *user's* code raises is not wrapped; Stepwell only adds a note to it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial
from typing import Any

from stepwell.kernel_runtime.text import printable


class StepwellError(Exception):
    """Base class of all errors that Stepwell defines.

    Parameters
    ----------
    what
        The failure in one sentence, with the name of the asset, step or file.
    where
        The cell, notebook, module or file in which the failure occurred, or a detail of the cause; empty if neither is known.
    remedy
        What the user can do next; empty if nothing can be advised.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        return printable("\n".join(part for part in (self.what, self.where, self.remedy) if part))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.remedy)

    def _render_traceback_(self) -> list[str]:
        return f"{type(self).__name__}: {self}".splitlines()


def _rebuild(cls: type[StepwellError], what: str, where: str, remedy: str) -> StepwellError:
    return cls(what, where=where, remedy=remedy)


class StepwellWarning(UserWarning):
    """The category of the Python warnings with which a script shows notices to the user. A notebook prints notices below the cell instead."""


# -- definitions ---------------------------------------------------------------------------------------------------


class InvalidDefinitionError(StepwellError):
    """Raised when a definition is declared incorrectly (Dagster: ``DagsterInvalidDefinitionError``)."""


class DuplicateKeyError(InvalidDefinitionError):
    """Raised when the same key belongs to two definitions that are passed together, to two cells of a notebook that runs in batch, or to two steps
    of a plan.
    """


class CycleError(InvalidDefinitionError):
    """Raised when assets or steps depend on each other in a cycle."""


class MissingUpstreamError(InvalidDefinitionError):
    """Raised when a step reads an asset that is not stored and that the run does not compute."""


class InvalidInvocationError(StepwellError):
    """Raised when a function or method is called with invalid arguments (Dagster: ``DagsterInvalidInvocationError``)."""


class InvariantViolationError(StepwellError):
    """Raised when an operation is not possible in the present state, for example a second run while a run is active (Dagster:
    ``DagsterInvariantViolationError``).
    """


# -- selection ------------------------------------------------------------------------------------------------------


class UnknownKeyError(StepwellError):
    """Raised when no asset, step, job, run or column has the requested name. The remedy lists similar names."""


class InvalidSelectionError(StepwellError):
    """Raised when a selection string has a syntax error."""


def unknown_key(kind: str, key: str, known_names: Iterable[str]) -> UnknownKeyError:
    """Return the error for a name that does not exist, with the most similar names as the remedy.

    Parameters
    ----------
    kind
        What the name should denote, for example ``asset`` or ``run``; used in the message.
    key
        The name that does not exist.
    known_names
        The names that exist.
    """
    names = sorted(set(known_names))
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.5)
    if near:
        remedy = "did you mean " + " or ".join(near) + "?"
    elif not names:
        remedy = "run the cells of the notebook first: there is nothing to choose from yet"
    else:
        shown = ", ".join(names[:8])
        remedy = "choose one of these: " + shown + (f", or one of {len(names) - 8} others" if len(names) > 8 else "")
    return UnknownKeyError(f"there is no {kind} {key!r}", remedy=remedy)


# -- running --------------------------------------------------------------------------------------------------------


class StepOutputNotFoundError(StepwellError):
    """Raised when a step did not produce a required output (Dagster: ``DagsterStepOutputNotFoundError``)."""


class TypeCheckError(StepwellError):
    """Raised when an input or output of a step does not have its declared type (Dagster: ``DagsterTypeCheckDidNotPass``)."""


class UserObjectError(StepwellError):
    """Raised when Stepwell calls a method of a user's object outside of the step's body, and the method fails or returns an invalid result."""


class DefinitionUnavailableError(StepwellError):
    """Raised when a step cannot be rerun or resumed because its definition is neither passed nor registered."""


class ValueNotKeptError(StepwellError):
    """Raised when a rerun or resumed step needs a value that an earlier run computed but could not store."""


class NamesReassignedError(StepwellError):
    """Raised when an upstream step must run, but other cells have reassigned variables that its body reads."""


class UpstreamBudgetError(StepwellError):
    """Raised when an asset cell needs upstream steps whose expected duration exceeds ``Stepwell.upstream_budget``. No step was run."""


# -- values and the store ---------------------------------------------------------------------------------------------


class ValueUnavailableError(StepwellError):
    """Raised when a key has no stored value, or when its stored value cannot be loaded and therefore counts as missing."""


class ValueDamagedError(ValueUnavailableError):
    """Raised when a stored value is damaged, for example when its file was truncated. The value then counts as missing."""


class UnknownVersionError(StepwellError):
    """Raised when no stored version of a key matches the requested one, or when several match."""


class AmbiguousKeyError(StepwellError):
    """Raised when several notebooks define the requested key and their current values differ."""


class SecretNotSetError(StepwellError):
    """Raised when the environment variable of a secret is not set."""


class UnstorableValueError(StepwellError):
    """Raised when a value cannot be stored in a form from which it can be loaded again.

    Parameters
    ----------
    subject
        The subject of the message, for example ``the value of 'fits'``.
    reason
        Why the value cannot be stored, as one sentence.
    path
        The path from the value to the member that cannot be stored, as a Python expression, for example ``['fits'][3].model``. Empty if the
        value itself cannot be stored, or if the member is unknown.
    around_path
        The two parts of a sentence about the member at `path`, for example ``("the Fit", " does not load as an equal object")``. The path is put
        between them. By default, the first part is `reason`, and the second part is empty.
    """

    def __init__(
        self,
        subject: str,
        reason: str,
        *,
        where: str = "",
        remedy: str = "",
        path: str = "",
        around_path: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(f"{subject} cannot be stored: {reason}", where=where, remedy=remedy)
        self.subject = subject
        self.reason = reason
        self.path = path
        self.around_path = around_path or (reason, "")

    def __reduce__(self) -> tuple[object, ...]:
        rebuild = partial(type(self), where=self.where, remedy=self.remedy, path=self.path, around_path=self.around_path)
        return rebuild, (self.subject, self.reason)


class UntrustedValueError(ValueUnavailableError):
    """Raised when a stored value is not loaded, because loading it could execute code and it is not signed with a key that this user trusts."""


class SignatureDamagedError(UntrustedValueError, ValueDamagedError):
    """Raised when the signature of a stored value names this user's key but does not match the value, because of damage or forgery."""


class PackError(StepwellError):
    """Raised when a pack cannot be written, or cannot be read because it is damaged or unsafe. No value of the pack was imported."""


class TrustNeededError(StepwellError):
    """Raised when a command would accept values that are signed with another user's key, and the user has not confirmed this.

    Attributes
    ----------
    offer
        Describes the values and their signer, for the question to the user (`records.maintenance.Offer`).
    """

    offer: Any = None


class DefinitionsOnlyError(StepwellError):
    """Raised when a run is requested in a kernel that was started only to register the definitions of a notebook."""


class QueryError(StepwellError):
    """Raised when a SELECT cannot run: it names a table or file that is missing or forbidden, or DuckDB rejects it."""


class NotTabularError(QueryError):
    """Raised when a SELECT names an asset whose value is not a table."""


class StoreError(StepwellError):
    """Base class of errors that prevent the use of a store; raised directly if no subclass describes the cause."""


class StoreNotWritableError(StoreError):
    """Raised when the store's directory cannot be created, or when a file in it cannot be written."""


class StorePermissionError(StoreNotWritableError):
    """Raised when the operating system denies access to the store's directory or to a file in it, or when a write would change a file's owner."""


class StoreReadOnlyError(StoreNotWritableError):
    """Raised when Stepwell has to write to the store, but the store's file system is mounted read-only."""


class StoreFullError(StoreError):
    """Raised when the store's disk is full, or when a file would exceed the operating system's size limit. Finished commits are not lost."""


class StoreQuotaError(StoreFullError):
    """Raised when the user's quota on the store's disk is used up. Finished commits are not lost."""


class StoreMemoryError(StoreError):
    """Raised when the system has too little memory, or too few threads, for the store. Finished commits are not lost."""


class TooManyFilesError(StoreError):
    """Raised when a file of the store cannot be opened because this process or the machine has too many open files."""


class OtherDeviceError(StoreError):
    """Raised when a folder inside the store is on another device than the store, so that files cannot be moved into it atomically."""


class StoreDiskError(StoreError):
    """Raised when the store's disk or network file system reports an input/output error or does not support locks."""


class UntrustedStoreError(StoreError):
    """Raised when it is unsafe to use the store: its directory contains a link or a file of another user, or its catalog contains objects other
    than tables.
    """


class StoreFormatError(StoreError):
    """Raised when a newer version of Stepwell wrote the store, and this version cannot read it."""


class StoreDamagedError(StoreError):
    """Raised when the store's catalog, or a record in it, cannot be read."""


# -- cells and notebooks ------------------------------------------------------------------------------------------------


class CellError(StepwellError):
    """Raised when no definition can be made from a cell, or when the SELECT of a SQL asset fails."""


class CellSyntaxError(CellError):
    """Raised when the body of a cell has a syntax error, or when a text that must be a single SELECT is not one."""


class CellValueError(CellError):
    """Raised when the code of a cell does not produce a value for the cell's asset."""


class CellNameError(CellError, NameError):
    """Raised when a name in a cell, in a flag of a cell or in a SELECT does not exist, is ambiguous, or cannot be used there."""


class NotebookError(StepwellError):
    """Raised when a notebook cannot be run in batch, or when its executed copy cannot be written."""


class NotebookNotFoundError(NotebookError):
    """Raised when the requested notebook does not exist or cannot be read."""


class NotebookKernelError(NotebookError):
    """Raised when the kernel that a notebook requires is not installed."""


# -- lineage ------------------------------------------------------------------------------------------------------------


class LayoutError(StepwellError):
    """Raised when Graphviz is missing or fails. The lineage is then drawn in plain layers, and the error is not shown to the user."""
