"""Errors of our own: what happened, to which asset, in which cell, and what to do next.

One class per thing that a caller could handle differently. Every message has up to three parts, one per line: what
happened, where, and the remedy. IPython shows these three lines and no traceback (``_render_traceback_``), because
the frames between the user's cell and the error are ours and say nothing; the original exception, where there is one,
is the ``__cause__``. An exception that the *user's* code raised is never wrapped: it is raised as it is, with a note.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from stepwell.kernel_runtime.text import printable


class StepwellError(Exception):
    """Base of every error that Stepwell raises by itself.

    Parameters
    ----------
    what
        What happened, naming the asset or step.
    where
        The cell, notebook, module or file that it happened in; may be empty.
    remedy
        What to do next; may be empty.
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
    """A line for the person who runs a script: what a notebook is told below its cell."""


# -- definitions ---------------------------------------------------------------------------------------------------


class InvalidDefinitionError(StepwellError):
    """A declaration that cannot be right (Dagster: ``DagsterInvalidDefinitionError``)."""


class DuplicateKeyError(InvalidDefinitionError):
    """Two definitions in one list, or two live cells in batch, claim the same key."""


class CycleError(InvalidDefinitionError):
    """Assets or steps that wait for each other."""


class MissingUpstreamError(InvalidDefinitionError):
    """An upstream that is neither in the given list, nor registered, nor stored."""


class InvalidInvocationError(StepwellError):
    """A definition called with the wrong arguments (Dagster: ``DagsterInvalidInvocationError``)."""


class InvariantViolationError(StepwellError):
    """A rule of the model broken at run time (Dagster: ``DagsterInvariantViolationError``)."""


# -- selection ------------------------------------------------------------------------------------------------------


class UnknownKeyError(StepwellError):
    """An asset, step, job or run that does not exist; the message has the nearest names."""


class InvalidSelectionError(StepwellError):
    """A selection string that cannot be read."""


def unknown_key(kind: str, key: str, known: Iterable[str]) -> UnknownKeyError:
    """Build the error for an unknown name, with the nearest known ones as its remedy."""
    names = sorted(set(known))
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.5)
    if near:
        remedy = "did you mean " + " or ".join(near) + "?"
    elif not names:
        remedy = f"no {kind} is defined yet: run the cells that define them first"
    else:
        shown = ", ".join(names[:8])
        remedy = "known: " + shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return UnknownKeyError(f"there is no {kind} {key!r}", remedy=remedy)


# -- running --------------------------------------------------------------------------------------------------------


class StepOutputNotFoundError(StepwellError):
    """A required output that the step did not produce (Dagster: ``DagsterStepOutputNotFoundError``)."""


class TypeCheckError(StepwellError):
    """A value that is not of its declared type (Dagster: ``DagsterTypeCheckDidNotPass``)."""


class UserObjectError(StepwellError):
    """An object of the user's raised, or was not what it says, when Stepwell had to look at it outside of the step's body."""


class DefinitionUnavailableError(StepwellError):
    """A re-run needs code that neither the argument nor the registry has."""


class ValueNotKeptError(StepwellError):
    """A re-execution needs a job's value that could not be stored when it was made."""


class NamesReassignedError(StepwellError):
    """A step that is needed must run, but other cells have assigned names again that it reads."""


class UpstreamBudgetError(StepwellError):
    """Upstream work is known to take longer than an interactive cell may start by itself."""


# -- values and the store ---------------------------------------------------------------------------------------------


class ValueUnavailableError(StepwellError):
    """A key has no stored value, or it cannot be loaded any more; it counts as missing."""


class ValueDamagedError(ValueUnavailableError):
    """A stored value whose file is cut short or changed; the file is set aside and the value counts as missing."""


class UnknownVersionError(StepwellError):
    """A key has no such version, or more than one that is meant."""


class AmbiguousKeyError(StepwellError):
    """Several notebooks define the key and their current values differ."""


class SecretNotSetError(StepwellError):
    """A secret that is asked for is not in the environment."""


class UnstorableValueError(StepwellError):
    """A step produced a value that no codec can bring back.

    Attributes
    ----------
    path
        Where in the value the object is that cannot be stored, as one would write it: ``['fits'][3].model``. Empty if it is the value itself, or
        is not known.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "", path: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), {"path": self.path})


class UntrustedValueError(ValueUnavailableError):
    """A stored value that would execute code, without a signature of a key that this user trusts."""


class SignatureDamagedError(UntrustedValueError, ValueDamagedError):
    """A stored value that this user's key signed, but not as it is now: damage and forgery look the same."""


class PackError(StepwellError):
    """A pack that cannot be written, or is damaged, foreign or unsafe: nothing of it was imported."""


class TrustNeededError(StepwellError):
    """Values that another key signed would be taken over, and the user has not confirmed it.

    Attributes
    ----------
    offer
        What would be taken over (`records.maintenance.Offer`).
    """

    offer: Any = None


class DefinitionsOnlyError(StepwellError):
    """A run was asked for in a kernel in which a notebook's definitions are only registered."""


class QueryError(StepwellError):
    """A SELECT that cannot be run: what it names is not there or not allowed, or DuckDB refuses it."""


class NotTabularError(QueryError):
    """A SELECT names an asset whose value is no table."""


class StoreError(StepwellError):
    """The store cannot be used."""


class StoreNotWritableError(StoreError):
    """The store's directory cannot be created or written."""


class StorePermissionError(StoreNotWritableError):
    """The user has no rights for the store, or for something in it."""


class StoreReadOnlyError(StoreNotWritableError):
    """The store is on a file system that is mounted read-only."""


class StoreFullError(StoreError):
    """There is no room on the store's disk, or a file would exceed a limit; what was acknowledged is safe."""


class StoreQuotaError(StoreFullError):
    """The user's quota of the store's disk is used up; what was acknowledged is safe."""


class StoreMemoryError(StoreError):
    """There is not enough memory, or no more threads, for the store's work; what was acknowledged is safe."""


class TooManyFilesError(StoreError):
    """The process, or the machine, has too many open files to use the store."""


class OtherDeviceError(StoreError):
    """A part of the store is on another device, so that a file cannot be put in its place in one step."""


class StoreDiskError(StoreError):
    """The store's disk or network file system reports an error of its own."""


class UntrustedStoreError(StoreError):
    """The store's directory holds what could reach out of it: a link, another user's file, or a catalog that is more than tables."""


class StoreFormatError(StoreError):
    """The store was written by a newer Stepwell."""


class StoreDamagedError(StoreError):
    """The catalog cannot be read."""


# -- cells and notebooks ------------------------------------------------------------------------------------------------


class CellError(StepwellError):
    """A cell that cannot become a definition."""


class CellSyntaxError(CellError):
    """A cell whose body is not Python (or not one SELECT)."""


class CellValueError(CellError):
    """A cell that has no value for its asset."""


class CellNameError(CellError, NameError):
    """A name that the body reads at run time although analysis did not find it, or that lives inside another cell."""


class NotebookError(StepwellError):
    """A notebook that cannot be run in batch."""


class NotebookNotFoundError(NotebookError):
    """The notebook does not exist or is no notebook."""


class NotebookKernelError(NotebookError):
    """The notebook names no kernel that is installed here."""


# -- pictures -----------------------------------------------------------------------------------------------------------


class LayoutError(StepwellError):
    """Graphviz is not there or could not lay out a lineage; the picture is drawn in plain layers instead."""
