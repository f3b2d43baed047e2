"""The errors of Stepwell, with one class per failure that a caller could handle differently.

A message has up to three lines: the failure, its location, and the remedy. IPython shows these lines without a traceback
(``_render_traceback_``), because all frames between the user's cell and the error belong to Stepwell. The original exception, if any, is
the ``__cause__``. Exceptions from the *user's* code are not wrapped; Stepwell only adds a note to them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from stepwell.kernel_runtime.text import printable


class StepwellError(Exception):
    """Base class of the errors that Stepwell raises itself.

    Parameters
    ----------
    what
        A description of the failure that names the asset or step.
    where
        The cell, notebook, module or file in which the failure occurred; may be empty.
    remedy
        The next action for the user; may be empty.
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
    """A notice to the user of a script; a notebook shows it below the cell."""


# -- definitions ---------------------------------------------------------------------------------------------------


class InvalidDefinitionError(StepwellError):
    """An invalid declaration (Dagster: ``DagsterInvalidDefinitionError``)."""


class DuplicateKeyError(InvalidDefinitionError):
    """Two definitions in one list, or two cells in batch, that have the same key."""


class CycleError(InvalidDefinitionError):
    """Assets or steps that depend on each other in a circle."""


class MissingUpstreamError(InvalidDefinitionError):
    """An upstream asset that is not in the given definitions, not registered and not stored."""


class InvalidInvocationError(StepwellError):
    """A definition called with the wrong arguments (Dagster: ``DagsterInvalidInvocationError``)."""


class InvariantViolationError(StepwellError):
    """A violation of a rule at run time (Dagster: ``DagsterInvariantViolationError``)."""


# -- selection ------------------------------------------------------------------------------------------------------


class UnknownKeyError(StepwellError):
    """An asset, step, job or run that does not exist; the message contains the nearest names."""


class InvalidSelectionError(StepwellError):
    """A selection string that cannot be parsed."""


def unknown_key(kind: str, key: str, known_names: Iterable[str]) -> UnknownKeyError:
    """Return the error for an unknown name; its remedy lists the nearest known names."""
    names = sorted(set(known_names))
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
    """A value that does not have its declared type (Dagster: ``DagsterTypeCheckDidNotPass``)."""


class UserObjectError(StepwellError):
    """A method of a user's object failed or returned an invalid result when Stepwell called it outside the step's body."""


class DefinitionUnavailableError(StepwellError):
    """A rerun or resumed run needs a definition that is neither passed nor registered."""


class ValueNotKeptError(StepwellError):
    """A rerun or resumed run needs a value of a job that could not be stored."""


class NamesReassignedError(StepwellError):
    """An upstream step must run, but other cells have since assigned names that it reads."""


class UpstreamBudgetError(StepwellError):
    """The expected duration of upstream steps exceeds the limit up to which an interactive cell starts them."""


# -- values and the store ---------------------------------------------------------------------------------------------


class ValueUnavailableError(StepwellError):
    """A key has no stored value, or its value can no longer be loaded and counts as missing."""


class ValueDamagedError(ValueUnavailableError):
    """A stored value whose file is truncated or changed; the file is moved aside and the value counts as missing."""


class UnknownVersionError(StepwellError):
    """A requested version that matches no version of a key, or several."""


class AmbiguousKeyError(StepwellError):
    """A key that several notebooks define with different current values."""


class SecretNotSetError(StepwellError):
    """A requested secret that is not in the environment."""


class UnstorableValueError(StepwellError):
    """A value that no codec can store and load again.

    Attributes
    ----------
    path
        The path inside the value to the object that cannot be stored, as a Python expression: ``['fits'][3].model``. Empty for the value
        itself, or if the object is unknown.
    reason
        The reason without the path, in two parts: the path belongs between them. ``("the Fit", " does not load as an equal object")``.
    """

    def __init__(
        self, what: str, *, where: str = "", remedy: str = "", path: str = "", reason: tuple[str, str] = ("", "")
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), {"path": self.path, "reason": self.reason})


class UntrustedValueError(ValueUnavailableError):
    """A stored value that would execute code when loaded and is not signed with a key that this user trusts."""


class SignatureDamagedError(UntrustedValueError, ValueDamagedError):
    """A stored value that does not match the signature of this user's key. Damage and forgery cannot be distinguished."""


class PackError(StepwellError):
    """A pack that cannot be written, or is damaged, foreign or unsafe. No value was imported from it."""


class TrustNeededError(StepwellError):
    """The user has not confirmed an import of values that were signed with another key.

    Attributes
    ----------
    offer
        The values that would be imported (`records.maintenance.Offer`).
    """

    offer: Any = None


class DefinitionsOnlyError(StepwellError):
    """A run was requested in a kernel that only registers the definitions of a notebook."""


class QueryError(StepwellError):
    """A SELECT that cannot run, because it names something missing or forbidden, or DuckDB rejects it."""


class NotTabularError(QueryError):
    """A SELECT names an asset whose value is not a table."""


class StoreError(StepwellError):
    """The store cannot be used."""


class StoreNotWritableError(StoreError):
    """The store's directory cannot be created or written."""


class StorePermissionError(StoreNotWritableError):
    """The user has no permission for the store or a file in it."""


class StoreReadOnlyError(StoreNotWritableError):
    """The store is on a file system that is mounted read-only."""


class StoreFullError(StoreError):
    """The store's disk is full, or a file would exceed a size limit. Acknowledged commits are safe."""


class StoreQuotaError(StoreFullError):
    """The user's quota on the store's disk is exhausted. Acknowledged commits are safe."""


class StoreMemoryError(StoreError):
    """The store cannot get enough memory or threads. Acknowledged commits are safe."""


class TooManyFilesError(StoreError):
    """The process or the machine has too many open files to use the store."""


class OtherDeviceError(StoreError):
    """A part of the store is on another device, so files cannot be moved into place atomically."""


class StoreDiskError(StoreError):
    """The store's disk or network file system reports an I/O error."""


class UntrustedStoreError(StoreError):
    """The store's directory is unsafe: it contains a link, a file of another user, or a catalog with objects other than tables."""


class StoreFormatError(StoreError):
    """The store was written by a newer version of Stepwell."""


class StoreDamagedError(StoreError):
    """The catalog cannot be read."""


# -- cells and notebooks ------------------------------------------------------------------------------------------------


class CellError(StepwellError):
    """A cell that cannot become a definition."""


class CellSyntaxError(CellError):
    """A cell whose body is not valid Python, or not exactly one SELECT."""


class CellValueError(CellError):
    """A cell that produces no value for its asset."""


class CellNameError(CellError, NameError):
    """A name that the body reads at run time although static analysis did not find it, or that exists only inside another cell."""


class NotebookError(StepwellError):
    """A notebook that cannot be run in batch."""


class NotebookNotFoundError(NotebookError):
    """The notebook does not exist, or the file is not a notebook."""


class NotebookKernelError(NotebookError):
    """The kernel that the notebook names is not installed."""


# -- lineage ------------------------------------------------------------------------------------------------------------


class LayoutError(StepwellError):
    """Graphviz is missing or could not lay out a lineage, so that plain layers are drawn."""
