"""The body of a step (a function, a notebook cell, or one SELECT), the source location of the body, and the signature of a function.

The body of a cell is executed like module-level code, not like the body of a function, so that closures, class bodies, recursion, ``global``
and top-level ``await`` behave as in a plain cell. The cell of an op runs in a separate namespace, which holds the inputs, the variables of the
notebook that the body may read, and builtins. The cell of an asset runs in the namespace of the notebook.

The parameters of a function are the context, the inputs and the config. A notebook may define thousands of steps, so the parameters are read
from the code object if possible, which takes a tenth of the time of `inspect.signature`.

A source location is ``cell 9, line 2`` for code in a notebook, and ``helpers.py:12`` for code in a module.
"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from stepwell.kernel_runtime.definitions.declarations import UNSET
from stepwell.kernel_runtime.errors import CellValueError, InvalidDefinitionError
from stepwell.kernel_runtime.records.bulk import quick_init

_label_of_file: Callable[[str], str | None] | None = None
_label_of_variable: Callable[[str], str] | None = None


def set_cell_labels(
    label_of_file: Callable[[str], str | None] | None = None, label_of_variable: Callable[[str], str] | None = None
) -> None:
    """Set the functions that return the labels of the notebook's cells. Without arguments, remove both functions.

    Parameters
    ----------
    label_of_file
        Gets the filename under which code was compiled, and returns the label (``cell 9``) of the cell that contains the code; None if the code
        is not in a cell.
    label_of_variable
        Gets the name of a variable, and returns the label (``cell 5``) of the cell that last bound or changed it. The result is an empty string if
        the cell is unknown or is the cell of a step.
    """
    global _label_of_file, _label_of_variable
    _label_of_file, _label_of_variable = label_of_file, label_of_variable


def place_of_name(name: str) -> str:
    """Return the label (``cell 5``) of the cell that last bound or changed the notebook's variable `name`.

    Return an empty string if the cell is unknown or is the cell of a step.
    """
    return _label_of_variable(name) if _label_of_variable is not None else ""


def place(filename: str, line: int) -> str:
    """Return the source location of a line of code for messages: ``cell 9, line 2``, ``helpers.py:12`` or ``<stdin>``."""
    cell = _label_of_file(filename) if _label_of_file is not None else None
    if cell is not None:
        return f"{cell}, line {line}"
    # A Path would take ten times as long, and a notebook may define thousands of steps.
    return filename if filename.startswith("<") else f"{filename.rpartition(os.sep)[2]}:{line}"


def place_of_function(function: Any) -> str:
    """Return the source location of `function`; return an empty string for a callable without Python code.

    If `function` wraps another function (``functools.wraps``), the location is that of the wrapped function.
    """
    if hasattr(function, "__wrapped__"):
        function = inspect.unwrap(function)
    return place_of(getattr(function, "__code__", None))


def place_of(code: CodeType | None) -> str:
    """Return the source location of `code`; return an empty string for None."""
    return place(code.co_filename, code.co_firstlineno) if code is not None else ""


@quick_init
@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the function of a step. `default` and `annotation` are `UNSET` if the function declares none."""

    name: str
    default: Any
    annotation: Any
    keyword_only: bool


@quick_init
@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters and the return annotation of the function of a step."""

    context: str | None
    """The name of the first parameter if it receives the context of the step; None if the function gets no context."""
    parameters: tuple[Parameter, ...]
    """All parameters except the one for the context, in order."""
    returns: Any
    """The return annotation; `UNSET` if the function has none."""


def read_signature(function: Callable[..., Any], *, where: str) -> Signature:
    """Return the signature of `function`, the function of a step.

    Parameters
    ----------
    where
        The source location of the function, for messages.

    Raises
    ------
    InvalidDefinitionError
        If the function takes ``*args`` or ``**kwargs``: each input of a step must have a name.
    """
    hints = _hints(function)
    if type(function) is FunctionType and not hasattr(function, "__wrapped__"):
        parameters = _from_code(function, hints, where)
    else:
        parameters = _from_inspect(function, hints, where)
    context = None
    if parameters and (parameters[0].name == "context" or _is_context(parameters[0].annotation)):
        context = parameters.pop(0).name
    return Signature(context, tuple(parameters), hints.get("return", UNSET))


_TEXT_HINTS = frozenset((str, typing.ForwardRef))
"""The types of annotations that are not evaluated yet."""


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    annotations = annotations_of(function) or {}
    if _TEXT_HINTS.isdisjoint(map(type, annotations.values())):
        return annotations
    try:
        return typing.get_type_hints(function)
    except Exception:
        # An annotation may use a name that only type checkers import. The type of such a parameter is not checked.
        return {name: UNSET if isinstance(hint, (str, typing.ForwardRef)) else hint for name, hint in annotations.items()}


def annotations_of(item: Any) -> dict[str, Any] | None:
    """Return the evaluated annotations of a function or class by name, or None if it has none.

    An annotation with an unbound name becomes a forward reference.

    Since Python 3.14, Python evaluates annotations at their first use and caches the result. For a class, this function evaluates them without
    filling the cache. A name in an annotation may be rebound before the user's code first uses the annotations; the cache would then be stale.
    """
    try:
        if not isinstance(item, type):
            return getattr(item, "__annotations__", None) or None
        attributes = vars(item)
        annotations: dict[str, Any] | None = attributes.get("__annotations__", attributes.get("__annotations_cache__"))
        annotate = attributes.get("__annotate_func__")
        if annotations is None and annotate is not None:
            # 1 is `annotationlib.Format.VALUE`; the module `annotationlib` exists since Python 3.14.
            annotations = annotate(1)
    except Exception:
        # An annotation may raise anything when it is evaluated.
        import annotationlib

        annotations = annotationlib.get_annotations(item, format=annotationlib.Format.FORWARDREF)
    return annotations or None


def _from_code(function: FunctionType, hints: dict[str, Any], where: str) -> list[Parameter]:
    code = function.__code__
    if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        raise _variadic(function.__name__, where)
    count, only = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    defaults = function.__defaults__ or ()
    first = count - len(defaults)
    parameters = [
        Parameter(name, defaults[i - first] if i >= first else UNSET, hints.get(name, UNSET), keyword_only=False)
        for i, name in enumerate(names[:count])
    ]
    if only:
        keyword = function.__kwdefaults__ or {}
        parameters += [
            Parameter(name, keyword.get(name, UNSET), hints.get(name, UNSET), keyword_only=True)
            for name in names[count : count + only]
        ]
    return parameters


def _from_inspect(function: Callable[..., Any], hints: dict[str, Any], where: str) -> list[Parameter]:
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise _variadic(getattr(function, "__name__", repr(function)), where)
        default = UNSET if parameter.default is parameter.empty else parameter.default
        parameters.append(Parameter(name, default, hints.get(name, UNSET), parameter.kind is parameter.KEYWORD_ONLY))
    return parameters


def _is_context(annotation: Any) -> bool:
    return bool(getattr(annotation, "__stepwell_context__", False))


def _variadic(name: str, where: str) -> InvalidDefinitionError:
    return InvalidDefinitionError(
        f"{name!r} takes *args or **kwargs, but each input of a step must have a name",
        where=where,
        remedy="write one parameter for each input; to pass a list of values, use one parameter for the list (fan-in)",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A statement that is executed again when its cell is reused.

    It is an import, the definition of a function or class, a magic that configures the kernel, an assignment of a lambda, or an assignment of the
    result of a call, if this result is a class.
    """

    names: tuple[str, ...]
    """The names that the statement binds; empty for a magic."""
    code: CodeType
    line: int
    """The number of the first line of the statement in the cell. For a function or class with decorators, the line of the first decorator."""
    end: int
    """The number of the last line of the statement in the cell."""
    is_import: bool
    """True if the statement is an import or a magic that configures the kernel."""
    always: bool
    """True if the statement is not nested in another statement, such as ``if``, so that every complete run of the cell executes the statement."""
    sources: tuple[tuple[str, str], ...] = ()
    """For each name that an import binds, a pair: a module, and the attribute of this module to which the name is bound. The attribute is an empty
    string if the name is bound to the module itself. The tuple is empty for a relative import and for a statement that is no import."""
    is_call: bool = False
    """True for an assignment of the result of a call. The statement counts as a definition only if the result is a class, as in
    ``P = namedtuple("P", "x y")``."""


@dataclass(frozen=True, slots=True, eq=False)
class CellBody:
    """The compiled body of a cell whose first line is a magic of Stepwell, such as ``%%asset`` or ``%%op``."""

    name: str
    """The name of the asset or op that the cell defines, for messages. If the cell defines several assets, the name of the first one."""
    source: str
    """The body as typed, without the first line of the cell."""
    where: str
    """The label of the cell for messages: ``cell 9``."""
    code: CodeType | None
    """The statements before the last expression, compiled as a module; None if there are none."""
    tail: CodeType | None
    """The last expression, compiled for evaluation; None if the body ends in a statement."""
    parameters: tuple[str, ...]
    """The names in the body that stand for inputs. In the cell of an asset, they refer to upstream assets; in the cell of an op, they are the names
    of the op's inputs and config parameters."""
    outputs: tuple[str, ...]
    """The variables that hold the results of the cell after the body has run. Empty if the value of the last expression is the result."""
    reads: frozenset[str]
    """The names that the body may read from the notebook, except `parameters`."""
    globals: dict[str, Any]
    """The namespace of the notebook itself, not a copy."""
    sees_all: bool = False
    """True if the body may read names that static analysis cannot find, for example with ``globals()`` or ``eval``. The step is then
    unverifiable, and the cell of an op runs with all names of the notebook."""
    is_async: bool = False
    """True if the body contains a top-level ``await``."""
    display: Callable[[Any], None] | None = None
    """Displays the value of the last expression; None if the value is not displayed."""
    finish: Callable[[Any, bool], Any] | None = None
    """Called if `outputs` is empty. The first argument is the value of the last expression, or None if the body has none; the second is True if the
    body has a last expression. It returns the value of the cell: the first argument or, if this is None, the only figure that the cell opened.
    If `finish` is None, the value of the last expression is the value of the cell."""
    settle: Callable[[tuple[Any, ...]], None] | None = None
    """Called with the values of the variables in `outputs`. It shows and closes the figures that the body opened, and closes each value that is a
    figure. If None, figures are left alone."""
    explain_name_error: Callable[[NameError], BaseException | None] | None = None
    """Called with a NameError that the cell of an op raised. If the missing name is a variable of the notebook that the op did not get, the
    function returns an error that says how to give the variable to the op; otherwise it returns None. For the cell of an asset, this attribute is
    None."""
    runs_in_notebook: bool = False
    """True for the cell of an asset, which runs in the namespace of the notebook like a plain cell; False for the cell of an op, which runs in a
    separate namespace."""
    variables: tuple[str, ...] = ()
    """For each output of the step, in order, the variable of the notebook that is bound to the value of the output. Empty for the cell of an op."""
    definitions: tuple[Definition, ...] = ()
    """The statements that are executed again when the cell is reused, such as imports and functions, in the order of the body."""
    always_assigned: frozenset[str] = frozenset()
    """The names that every path through the body assigns."""
    assigned_values: frozenset[str] = frozenset()
    """The names that the body binds by statements outside of `definitions`. Names to which the body assigns the result of a call, as in
    ``P = namedtuple("P", "x y")``, are always included, although the assignment may be in `definitions`."""
    changes: frozenset[str] | None = None
    """The names whose objects the statements of the body may change in place; None if these names are unknown."""
    changed_variables: tuple[tuple[str, str], ...] = ()
    """Pairs of a variable that no longer has the value of its asset, and a label. A cell or step has changed the value in place, or a plain cell has
    rebound the variable. The label names the cell or step that did so last, for example ``[5] (df.x = 1)``; it is empty if neither is known."""
    earlier: Callable[[], Mapping[str, Any]] = dict
    """Returns, by name, the values that variables had before the last run of this cell in this kernel; `MISSING` (`versions/graph`) stands for a
    variable that did not exist. Only those variables are included that the body both reads and binds, that nothing else has bound since, and that
    did not exist or had a simple value, such as a number or a string."""
    result: str | None = None
    """The variable whose value the shell keeps in ``Out`` as the result of the cell. An empty string if the shell keeps the value of the last
    expression instead; None if it keeps nothing."""
    unseen: tuple[str, ...] = ()
    """Reasons why the step is unverifiable, besides those that the code walk finds in the code objects of the step. An example is a shell command."""
    kept_variables: frozenset[str] = frozenset()
    """The variables besides `outputs` that the flag ``--keep`` lists: they are stored regardless of their size."""
    dropped_variables: frozenset[str] = frozenset()
    """The variables besides `outputs` that the flag ``--drop`` lists: they are never stored."""
    must_be_stored: bool = False
    """True if the flag ``--stored`` is set: the step fails if its value cannot be stored. Without the flag, an interactive kernel keeps such a
    value only in memory."""

    def defined_names(self, numbers: Iterable[int]) -> list[str]:
        """Return the names that some statements of `definitions` bind. `numbers` are the indices of the statements; too large indices are ignored."""
        return [name for number in numbers if number < len(self.definitions) for name in self.definitions[number].names]

    @property
    def bound_names(self) -> set[str]:
        """The names that the body may bind in its namespace, which is that of the notebook or, for the cell of an op, a separate one."""
        return {*self.assigned_values, *[name for definition in self.definitions for name in definition.names]}

    def namespace(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a new namespace for a body that does not run in the notebook: the notebook's variables that the body may read, and `inputs`."""
        notebook = self.globals
        names = notebook if self.sees_all else self.reads
        space = {name: notebook[name] for name in names if name in notebook}
        for name in ("__builtins__", "__name__", "__file__", "__doc__"):
            if name in notebook:
                space[name] = notebook[name]
        space.update(inputs)
        return space

    def value(self, space: Mapping[str, Any], tail: Any) -> Any:
        """Return the value of the cell after the body has run: a tuple if `outputs` contains several variables.

        Parameters
        ----------
        space
            The namespace in which the body has run.
        tail
            The value of the last expression; None if the body has none.

        Raises
        ------
        CellValueError
            If the body did not assign a variable in `outputs`, or `finish` found no value.
        """
        if not self.outputs:
            return self.finish(tail, self.tail is not None) if self.finish else tail
        values = []
        for name in self.outputs:
            if name not in space:
                raise CellValueError(
                    f"the cell of {self.name!r} ended without assigning {name!r}",
                    where=self.where,
                    remedy=f"assign {name} on every path through the cell, including every branch of an if",
                )
            values.append(space[name])
        if self.settle is not None:
            self.settle(tuple(values))
        return values[0] if len(values) == 1 else tuple(values)


@dataclass(frozen=True, slots=True, eq=False)
class SqlBody:
    """The body of a SQL asset: one SELECT over assets, which DuckDB executes."""

    name: str
    """The last part of the key of the asset, for messages."""
    text: str
    """The SELECT as typed, without the semicolon at its end."""
    where: str
    inputs: tuple[str, ...]
    """The tables that the SELECT reads, each written like an asset key (``raw/flights`` for the table ``raw.flights``), in the order in which they
    appear. Of spellings that differ only in case, only the first is listed."""
    parameters: tuple[str, ...]
    """The names of the parameters (``$name``) of the SELECT."""
    globals: dict[str, Any]
    """The namespace in which the values of `parameters` are looked up when the SELECT runs: the namespace of the notebook, or a dict of values."""
    frame: str
    """The type of the result: ``pandas``, ``pyarrow`` or ``polars``. It is part of the code version."""
    canonical: str = ""
    """The SELECT in the normal form of DuckDB's parser, without white space and comments. It is part of the code version."""


def source_of(body: object) -> str:
    """Return the source code of `body` (a function, a `CellBody` or a `SqlBody`) as typed; return an empty string if it is not available."""
    if isinstance(body, CellBody):
        return body.source
    if isinstance(body, SqlBody):
        return body.text
    try:
        return inspect.getsource(inspect.unwrap(body))  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""
