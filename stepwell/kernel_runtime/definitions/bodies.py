"""What runs when a step runs: a function, or the body of a notebook cell, or one SELECT.

A cell's body is executed as module-level code in a namespace of its own, never as the body of a function: closures, class
bodies, recursion, ``global`` and top-level ``await`` behave as they do in a cell. The namespace holds the inputs, the
notebook's names that analysis found, and builtins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

from stepwell.kernel_runtime.errors import CellValueError


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """An import, function or class that a cell's body defines, or a magic that sets the kernel up: executed again after a hit."""

    names: tuple[str, ...]
    """Names that it binds; none for a magic."""
    code: CodeType
    line: int
    """The line of ``def`` or ``class`` in the cell, or of its first decorator, as `co_firstlineno` has it."""
    end: int
    """Its last line."""
    is_import: bool
    always: bool
    """Whether it is executed whenever the body runs to its end: it stands in no other statement."""
    sources: tuple[tuple[str, str], ...] = ()
    """Of an import, for each name the module, and the attribute of the module or nothing; empty for a relative import."""
    is_call: bool = False
    """Whether it assigns what a call returns, and defines a class only if that is one: ``P = namedtuple("P", "x y")``."""


@dataclass(frozen=True, slots=True, eq=False)
class CellBody:
    """The compiled body of a magic's cell.

    `run` is given the inputs and returns one value per name in `outputs`, or the single value.
    """

    name: str
    """The first name that the cell defines, for messages."""
    source: str
    """The body as typed, without the magic's line."""
    where: str
    """``cell 9``: for messages."""
    code: CodeType | None
    """The statements before the last expression, compiled as a module; None if there are none."""
    tail: CodeType | None
    """The last expression, compiled to be evaluated; None if the cell ends in a statement."""
    parameters: tuple[str, ...]
    """Names that are bound to inputs: assets by their names, an op's parameters and config."""
    outputs: tuple[str, ...]
    """Variables that are the value; empty where the last expression is."""
    reads: frozenset[str]
    """Names of the notebook that the body may read as globals, inputs and builtins not among them."""
    globals: dict[str, Any]
    """The notebook's namespace, live."""
    sees_all: bool = False
    """Whether the body looks names up in ways that cannot be seen (``globals()``, ``eval``): the step is unverifiable then, and
    runs with every name of the notebook."""
    is_async: bool = False
    """Whether the body awaits at its top level."""
    display: Callable[[Any], None] | None = None
    """Called with the value of the last expression where that is to be displayed; None for nothing displayed."""
    finish: Callable[[Any, bool], Any] | None = None
    """Called with the last expression's value (and whether there is one) where that is the value: a figure for None."""
    settle: Callable[[tuple[Any, ...]], None] | None = None
    """Called with the values where variables are the value: open figures are shown and closed."""
    missing: Callable[[NameError], BaseException | None] | None = None
    """Explains a NameError of the pruned namespace."""
    live: bool = False
    """Whether the body runs in the notebook's own namespace, as a plain cell does: asset cells. Else it runs in a separate one: ops."""
    variables: tuple[str, ...] = ()
    """For each output of the step the variable of the notebook that is bound to its value."""
    definitions: tuple[Definition, ...] = ()
    """What the body defines at its top level, in order."""
    sure: frozenset[str] = frozenset()
    """Names that the body assigns on every path."""
    stored: frozenset[str] = frozenset()
    """Names that the body assigns otherwise than by a definition."""
    changes: frozenset[str] | None = None
    """Names whose objects the body itself may change in place; None if that is not known."""
    changed: tuple[tuple[str, str], ...] = ()
    """Variables that were values of assets and that plain cells have changed or bound again, each with the label of the last such cell."""
    earlier: Callable[[], Mapping[str, Any]] = dict
    """Returns names that the cell may read and bound itself when it ran in this kernel, each with the value from before; `MISSING` of `versions` for none."""
    result: str | None = None
    """The result that the shell keeps: a variable's name, empty for the value of the last expression, None if the cell has no result."""
    unseen: tuple[str, ...] = ()
    """Why the step is unverifiable although its code does not show it: it runs commands of the shell."""
    kept: frozenset[str] = frozenset()
    """Secondary variables that must be stored, whatever that costs: ``--keep``."""
    dropped: frozenset[str] = frozenset()
    """Secondary variables that must not be stored: ``--drop``."""
    must_be_stored: bool = False
    """Whether a value that cannot be stored is a failure in a kernel too: ``--stored``."""

    def defined(self, numbers: Iterable[int]) -> list[str]:
        """Return the names that some of the definitions bind, given by their places."""
        return [name for number in numbers if number < len(self.definitions) for name in self.definitions[number].names]

    @property
    def bound(self) -> set[str]:
        """Names that the body may bind at its top level."""
        return {*self.stored, *[name for definition in self.definitions for name in definition.names]}

    def namespace(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the pruned namespace that the body runs in."""
        notebook = self.globals
        names = notebook if self.sees_all else self.reads
        space = {name: notebook[name] for name in names if name in notebook}
        for name in ("__builtins__", "__name__", "__file__", "__doc__"):
            if name in notebook:
                space[name] = notebook[name]
        space.update(inputs)
        return space

    def value(self, space: Mapping[str, Any], tail: Any) -> Any:
        """Return the cell's value from the namespace after it ran and the value of its last expression.

        Raises
        ------
        CellValueError
            If a variable that is to be the value was not assigned.
        """
        if not self.outputs:
            return self.finish(tail, self.tail is not None) if self.finish else tail
        found = []
        for name in self.outputs:
            if name not in space:
                raise CellValueError(
                    f"the cell of {self.name!r} ended without assigning {name!r}",
                    where=self.where,
                    remedy=f"assign {name} on every path through the cell",
                )
            found.append(space[name])
        if self.settle is not None:
            self.settle(tuple(found))
        return found[0] if len(found) == 1 else tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class SqlBody:
    """One SELECT over assets; executed by the session's SQL instance."""

    name: str
    text: str
    where: str
    inputs: tuple[str, ...]
    """Names of tables in the text that are assets."""
    parameters: tuple[str, ...]
    """Names of ``$name`` parameters: variables of the notebook."""
    globals: dict[str, Any]
    frame: str
    """The type of the result: ``pandas``, ``pyarrow`` or ``polars``; counts in the code version."""
    canonical: str = ""
    """The statement as the parser understands it: what the code version digests."""


def source_of(body: object) -> str:
    """Return the source of a body as a reader wants it; empty where there is none."""
    if isinstance(body, CellBody):
        return body.source
    if isinstance(body, SqlBody):
        return body.text
    try:
        return inspect.getsource(inspect.unwrap(body))  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""
