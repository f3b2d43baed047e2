"""Ops: functions, cells or SELECTs with typed inputs, outputs and config. Each planned step runs one op."""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import FunctionType
from typing import Any, TypeAlias, TypedDict, Unpack, overload

from stepwell.kernel_runtime.definitions.bodies import CellBody, Parameter, SqlBody, place_of_function, read_signature
from stepwell.kernel_runtime.definitions.composition import composing
from stepwell.kernel_runtime.definitions.declarations import (
    PLAIN,
    UNSET,
    Checker,
    In,
    MaxAge,
    Nothing,
    Out,
    Output,
    check_reuse,
    checker,
    declared_reads,
    ignored_names,
    is_nothing,
    seconds_of,
    type_name,
)
from stepwell.kernel_runtime.errors import InvalidDefinitionError, InvalidInvocationError, TypeCheckError
from stepwell.kernel_runtime.records.keys import check_name

Body: TypeAlias = Callable[..., Any] | CellBody | SqlBody


class Reuse(TypedDict, total=False):
    """The options that decide when the stored result of a step is reused. The decorator `asset` documents them."""

    cache: bool | None
    volatile: bool
    max_age: MaxAge
    ignore: Iterable[str] | str | None
    reads: Iterable[str | os.PathLike[str]] | str | None


class OpDefinition:
    """The body of a step with its inputs, outputs, config and options.

    A call of the op in the body of a graph adds a node to the graph. Any other call runs the function of the op directly: arguments and types
    are checked, no stored result is reused, and nothing is recorded.

    Attributes
    ----------
    name
        The name of the op. A node that calls the op gets this name, unless an `Alias` of the op is called.
    ins, outs
        The inputs and the outputs by name, in order.
    config
        Maps the name of each config parameter to its default, or to `UNSET` if the parameter has no default. A call in a graph may set the
        parameter to a constant.
    context
        The name of the parameter that receives the context of the step; None if the function gets no context.
    cache
        True if results are reused, False if they are not; None if results are reused in assets but not in jobs.
    volatile
        True if the op is executed in every run that needs its outputs.
    max_age
        The age in seconds up to which a stored result is reused; None for no limit.
    ignore
        The names of variables and attributes that are excluded from the code version.
    reads
        Paths and patterns, absolute or relative to the working directory, of files that the body reads in ways that Stepwell cannot record.
    """

    def __init__(
        self,
        name: str,
        body: Body,
        *,
        ins: Mapping[str, In],
        outs: Mapping[str, Out],
        config: Mapping[str, Any] | None = None,
        context: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        cache: bool | None = None,
        where: str = "",
        defaults: Mapping[str, Any] | None = None,
        volatile: bool = False,
        max_age: MaxAge = None,
        ignore: Iterable[str] | str | None = None,
        reads: Iterable[str | os.PathLike[str]] | str | None = None,
    ) -> None:
        self.name = name
        self.body = body
        self.ins = dict(ins)
        self.outs = dict(outs)
        self.config = dict(config or {})
        self.context = context
        self.description = description
        self.tags = dict(tags or {})
        self.cache = cache
        self.volatile = volatile
        self.max_age = seconds_of(max_age, where=where)
        self.ignore = ignored_names(ignore, where=where)
        self.reads = declared_reads(reads, where=where)
        check_reuse(cache=cache, volatile=volatile, max_age=self.max_age, name=name, where=where)
        self.where = where
        self.defaults = dict(defaults or {})
        """Maps the name of an input to its default: the value that the input gets if it is not connected. Inputs without a default are left out."""
        self.parameters = tuple([name for name, declared in self.ins.items() if not is_nothing(declared.dagster_type)])
        """The names of the inputs that carry a value."""
        self.input_checks: dict[str, Checker] = {}
        for parameter in self.parameters:
            check = _check(self.ins[parameter].dagster_type)
            if check is not None:
                self.input_checks[parameter] = check
        self.output_checks: dict[str, Checker] = {}
        for output, out in self.outs.items():
            check = None if is_nothing(out.dagster_type) else _check(out.dagster_type)
            if check is not None:
                self.output_checks[output] = check
        self.is_generator, self.is_async = _kind_of(body)

    @property
    def __stepwell_body__(self) -> Body:
        """The body of the op. If the code of a step refers to this definition, the step's code version covers the body."""
        return self.body

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.description or getattr(self.body, "__doc__", None)

    def alias(self, name: str) -> Alias:
        """Return an `Alias` of this op: a call of the alias in the body of a graph adds a node with the name `name`."""
        return Alias(self, name)

    def check_output(self, output: str, value: Any, step: str) -> None:
        """Raise `TypeCheckError` if `value` does not have the type of the output `output`; the message names the step `step`."""
        check = self.output_checks.get(output)
        if check is not None and not check(value):
            raise TypeCheckError(
                f"step {step!r}: the output {output!r} is {_described(value)}, not of type {type_name(self.outs[output].dagster_type)}",
                where=self.where,
                remedy="return a value of the declared type, or change the type in the declaration of the output",
            )

    def check_input(self, name: str, value: Any, step: str) -> None:
        """Raise `TypeCheckError` if `value` does not have the type of the input `name`; the message names the step `step`."""
        check = self.input_checks.get(name)
        if check is not None and not check(value):
            raise TypeCheckError(
                f"step {step!r}: the input {name!r} is {_described(value)}, not of type {type_name(self.ins[name].dagster_type)}",
                where=self.where,
                remedy="pass a value of the declared type, or change the type in the declaration of the input",
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """In the body of a graph, add a node to the graph and return its handles. Otherwise run the function directly and return its result."""
        composition = composing()
        if composition is not None:
            return composition.add(self, None, args, kwargs)
        return invoke(self, args, kwargs)

    def __repr__(self) -> str:
        parameters = ", ".join([*self.parameters, *(["*", *self.config] if self.config else [])])
        # If a cell has only one output, the output has the name ``result``. The name of its variable says more.
        variables = self.body.outputs if isinstance(self.body, CellBody) and len(self.outs) == 1 else ()
        return f"<op {self.name}({parameters}) -> {', '.join(variables or self.outs) or 'nothing'}>"


def _kind_of(body: Body) -> tuple[bool, bool]:
    """Return a pair of bools: whether a call of `body` returns a generator, and whether `body` is asynchronous."""
    if type(body) is FunctionType:
        flags = body.__code__.co_flags
        return bool(flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR)), bool(
            flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR)
        )
    if isinstance(body, CellBody | SqlBody):
        return False, isinstance(body, CellBody) and body.is_async
    return (
        inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body),
        inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body),
    )


class Alias:
    """An op or graph under another name. A call of the alias in the body of a graph adds a node with this name."""

    def __init__(self, definition: Any, name: str) -> None:
        self.definition = definition
        self.name = check_name("a node", name, where=definition.where)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """In the body of a graph, add a node with the name of the alias and return its handles. Otherwise call the op or graph itself."""
        composition = composing()
        if composition is None:
            return self.definition(*args, **kwargs)
        return composition.add(self.definition, self.name, args, kwargs)


def invoke(op: OpDefinition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the function of an op directly and return its result, without reading or writing the store.

    Raises
    ------
    InvalidInvocationError
        If an argument is missing, is passed twice or is not a parameter of the op, or if the body of the op is a cell or a SELECT.
    TypeCheckError
        If an argument or the result does not have its declared type.
    """
    if isinstance(op.body, CellBody | SqlBody):
        raise InvalidInvocationError(
            f"{op.name!r} is defined by a cell or a SELECT, so it cannot be called like a function",
            where=op.where,
            remedy=f"call {op.name} in the body of a graph, a job or a graph-backed asset; if {op.name} is an asset, run %materialize {op.name}",
        )
    names = ([op.context] if op.context else []) + list(op.parameters)
    if len(args) > len(names):
        raise InvalidInvocationError(
            f"{op.name!r} got too many positional arguments: {len(args)} instead of at most {len(names)}",
            where=op.where,
            remedy=f"pass only its inputs by position: {', '.join(names)}" if names else "pass no argument by position",
        )
    arguments = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name in arguments:
            raise InvalidInvocationError(
                f"{op.name!r} got the argument {name!r} twice: by position and by keyword",
                where=op.where,
                remedy=f"remove the argument {name}=...",
            )
        if name not in op.ins and name not in op.config and name != op.context:
            known = ", ".join([*op.parameters, *op.config])
            raise InvalidInvocationError(
                f"{op.name!r} has no parameter {name!r}",
                where=op.where,
                remedy=f"use a parameter of {op.name}: {known}" if known else f"call {op.name} without arguments",
            )
        arguments[name] = value
    if op.context and op.context not in arguments:
        raise InvalidInvocationError(
            f"{op.name!r} needs a context as its first argument",
            where=op.where,
            remedy=f"outside a run there is no context, so pass None: {op.name}(None, ...)",
        )
    for name in op.parameters:
        if name not in arguments and name not in op.defaults:
            raise InvalidInvocationError(
                f"the call of {op.name!r} does not pass the input {name!r}, which has no default",
                where=op.where,
                remedy=f"pass a value: {op.name}({name}=...)",
            )
        if name in arguments:
            op.check_input(name, arguments[name], op.name)
    for name, default in op.config.items():
        if name not in arguments and default is UNSET:
            raise InvalidInvocationError(
                f"the call of {op.name!r} does not set the config parameter {name!r}, which has no default",
                where=op.where,
                remedy=f"set it by keyword: {op.name}(..., {name}=...)",
            )
    # Arguments for inputs of type Nothing are accepted, but the function has no parameters for them.
    returned = op.body(**{name: value for name, value in arguments.items() if name not in op.ins or name in op.parameters})
    if not op.is_generator and not op.is_async:
        values = returned if len(op.outs) > 1 and isinstance(returned, tuple) else (returned,)
        if len(values) == len(op.outs):
            for output, value in zip(op.outs, values, strict=True):
                op.check_output(output, value.value if isinstance(value, Output) else value, op.name)
    return returned


def build_op(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    ins: Mapping[str, In] | None = None,
    out: Out | Mapping[str, Out] | None = None,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
    keyword_config: bool = True,
    where: str | None = None,
    **reuse: Unpack[Reuse],
) -> OpDefinition:
    """Return the op whose body is `function`. The decorator `op` documents all parameters except these two.

    Parameters
    ----------
    keyword_config
        True if keyword-only parameters of `function` are config; False if they are inputs.
    where
        The source location of `function`, for messages; None to find it out from `function`.

    Raises
    ------
    InvalidDefinitionError
        If a name or option is invalid, if `function` takes ``*args`` or ``**kwargs``, or if a name in `ins` is not a parameter of `function`.
        Inputs of type `Nothing` are an exception: the error is raised if such an input is a parameter.
    """
    where = place_of_function(function) if where is None else where
    name = check_name("an op", name or str(getattr(function, "__name__", "")), where=where)
    signature = read_signature(function, where=where)
    config: dict[str, Any] = {}
    parameters: dict[str, Parameter] = {}
    for parameter in signature.parameters:
        if keyword_config and parameter.keyword_only:
            config[parameter.name] = parameter.default
        else:
            parameters[parameter.name] = parameter
    declared = ins or {}
    for key, declaration in declared.items():
        if key not in parameters and not is_nothing(declaration.dagster_type):
            raise InvalidDefinitionError(
                f"ins= of {name!r} names {key!r}, which is not a parameter of its function",
                where=where,
                remedy=f"in ins=, use only names of parameters; the function has {', '.join(parameters) or 'none'}; to only run {name} after another step, declare {key}: In(Nothing)",
            )
    resolved: dict[str, In] = {}
    defaults: dict[str, Any] = {}
    for key, parameter in parameters.items():
        check_name("an input", key, where=where)
        declaration = declared.get(key, _BARE_IN)
        hint = declaration.dagster_type if declaration.dagster_type is not UNSET else parameter.annotation
        if is_nothing(hint):
            raise _nothing_parameter(name, key, where)
        default = declaration.default_value if declaration.default_value is not UNSET else parameter.default
        if default is not UNSET:
            defaults[key] = default
        elif declaration is _BARE_IN and type(hint) is type and hint in PLAIN:
            resolved[key] = _plain_in(hint)
            continue
        resolved[key] = In(hint, declaration.description, default, declaration.metadata)
    if declared:
        resolved.update({key: declaration for key, declaration in declared.items() if key not in parameters})
    return OpDefinition(
        name,
        function,
        ins=resolved,
        outs=_outs(name, out, signature.returns, where),
        config=config,
        context=signature.context,
        description=description or function.__doc__,
        tags=tags,
        where=where,
        defaults=defaults,
        **reuse,
    )


_BARE_IN = In()
BARE_OUT = Out()
"""The declaration of an output without options."""


@cache
def _plain_in(hint: type) -> In:
    """Return the declaration of an input with the builtin type `hint` and no options. All such inputs share this object, to save time and memory."""
    return In(hint)


@cache
def _default_out(hint: type) -> Out:
    return Out(hint)


def _nothing_parameter(op: str, name: str, where: str) -> InvalidDefinitionError:
    return InvalidDefinitionError(
        f"the input {name!r} of {op!r} has the type Nothing, which has no values, so it cannot be a parameter of the function",
        where=where,
        remedy=f"remove the parameter {name} from the function and declare ins={{{name!r}: In(Nothing)}}",
    )


def _outs(name: str, out: Out | Mapping[str, Out] | None, returns: Any, where: str) -> dict[str, Out]:
    hint = _output_hint(returns)
    if out is None or isinstance(out, Out):
        single = out or BARE_OUT
        return {"result": _typed(single, Nothing if hint is None else hint)}
    for key in out:
        if key != "result":
            check_name(f"an output of {name!r}", key, where=where)
    if len(out) == 1:
        return {key: _typed(single, hint) for key, single in out.items()}
    members = typing.get_args(returns) if typing.get_origin(returns) is tuple else ()
    if len(members) != len(out):
        return dict(out)
    return {key: _typed(item, _output_hint(member)) for (key, item), member in zip(out.items(), members, strict=True)}


def _typed(out: Out, hint: Any) -> Out:
    if out.dagster_type is not UNSET:
        return out
    if (out is BARE_OUT or out == BARE_OUT) and type(hint) is type and hint in PLAIN:
        return _default_out(hint)
    return Out(hint, out.description, out.is_required, out.metadata)


def _output_hint(hint: Any) -> Any:
    if hint is UNSET or (type(hint) is type and hint is not Output):
        return hint
    origin = typing.get_origin(hint)
    if origin is Output:
        return typing.get_args(hint)[0]
    if hint is Output or (
        isinstance(origin, type)
        and origin.__module__ == "collections.abc"
        and origin.__name__ in {"Iterator", "Generator", "Iterable", "AsyncIterator", "AsyncGenerator"}
    ):
        return UNSET
    return hint


def _check(hint: Any) -> Checker | None:
    return None if hint is UNSET else checker(hint)


def _described(value: Any) -> str:
    try:
        shown = repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"of type {type(value).__name__}"
    return f"of type {type(value).__name__} ({shown if len(shown) <= 60 else shown[:57] + '...'})"


@overload
def op(compute_fn: Callable[..., Any]) -> OpDefinition: ...
@overload
def op(
    compute_fn: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    ins: Mapping[str, In] | None = None,
    out: Out | Mapping[str, Out] | None = None,
    tags: Mapping[str, str] | None = None,
    cache: bool | None = None,
    volatile: bool = False,
    max_age: MaxAge = None,
    ignore: Iterable[str] | str | None = None,
    reads: Iterable[str | os.PathLike[str]] | str | None = None,
) -> Callable[[Callable[..., Any]], OpDefinition]: ...
def op(
    compute_fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    ins: Mapping[str, In] | None = None,
    out: Out | Mapping[str, Out] | None = None,
    tags: Mapping[str, str] | None = None,
    cache: bool | None = None,
    volatile: bool = False,
    max_age: MaxAge = None,
    ignore: Iterable[str] | str | None = None,
    reads: Iterable[str | os.PathLike[str]] | str | None = None,
) -> OpDefinition | Callable[[Callable[..., Any]], OpDefinition]:
    """Define an op by a function. The bodies of graphs, jobs and graph-backed assets call ops.

    Positional parameters of the function are inputs. Keyword-only parameters are config: constants that a call in the body of a graph may set.
    If the first parameter has the name ``context``, it receives the context of the step.

    Parameters
    ----------
    compute_fn
        The function to decorate; None if the decorator is used with arguments, as in ``@op(cache=True)``.
    name
        The name of the op; by default the name of the function.
    description
        The description of the op; by default the docstring of the function.
    ins
        Declarations of inputs, by name. An input that is not listed is declared by the annotation and the default of its parameter.
    out
        The declaration of the only output, or the declarations of all outputs by name. By default there is one output, ``result``, whose type is the
        return annotation.
    tags
        Arbitrary strings by name. Stepwell does not use them.
    cache
        True to reuse results in jobs, too; False to reuse no results. By default, results are reused only in graph-backed assets.
    volatile, max_age, ignore, reads
        The same as in `asset`.

    Returns
    -------
    OpDefinition
        The definition of the op; if `compute_fn` is None, a decorator that returns the definition.

    Raises
    ------
    InvalidDefinitionError
        If a name or option is invalid, if the function takes ``*args`` or ``**kwargs``, or if a name in `ins` is not a parameter of the function.
        Inputs of type `Nothing` are an exception: they must not be parameters.

    Examples
    --------
    ::

        @op
        def add(left: int, right: int, *, offset: int = 0) -> int:
            return left + right + offset
    """

    def decorate(function: Callable[..., Any]) -> OpDefinition:
        return build_op(
            function, name=name, ins=ins, out=out, description=description, tags=tags, cache=cache,
            volatile=volatile, max_age=max_age, ignore=ignore, reads=reads,
        )  # fmt: skip

    return decorate(compute_fn) if compute_fn is not None else decorate
