"""Ops: names, inputs, types, and calling one directly."""

import asyncio

import pytest

from stepwell import AssetOut, In, Nothing, OpExecutionContext, Out, Output, asset, graph_asset, multi_asset, op
from stepwell.kernel_runtime.errors import InvalidDefinitionError, InvalidInvocationError, TypeCheckError


def test_bare_and_called_decorators_give_the_same():
    def f(x):
        return x

    assert op(f).name == op()(f).name == "f"
    assert list(op(f).ins) == ["x"]
    assert list(op(f).outs) == ["result"]


def test_the_context_is_found_by_name_or_annotation():
    @op
    def by_name(context, x):
        return x

    @op
    def by_type(c: OpExecutionContext, x):
        return x

    assert list(by_name.ins) == list(by_type.ins) == ["x"]


def test_ins_must_name_parameters():
    with pytest.raises(InvalidDefinitionError, match="'y', which is not a parameter") as caught:
        op(name="f", ins={"y": In(int)})(lambda x: x)
    assert "x" in caught.value.remedy
    assert list(op(name="f", ins={"y": In(Nothing)})(lambda x: x).ins) == ["x", "y"]
    with pytest.raises(
        InvalidDefinitionError, match="'x' of 'f' has the type Nothing, which has no values, so it cannot be a parameter"
    ):
        op(name="f", ins={"x": In(Nothing)})(lambda x: x)


def test_a_parameter_annotated_nothing_is_refused():
    with pytest.raises(InvalidDefinitionError, match="Nothing, which has no values, so it cannot be a parameter"):

        @op
        def f(x: Nothing):
            return 1


def test_variadic_functions_are_refused():
    for function in (lambda *values: 1, lambda **values: 1):
        with pytest.raises(InvalidDefinitionError, match="each input of a step must have a name"):
            op(name="f")(function)


def test_reserved_input_names_are_refused():
    with pytest.raises(InvalidDefinitionError, match="'config' is reserved"):

        @op
        def f(config):
            return 1


def test_defaults_and_keyword_only_config():
    @op
    def f(x, y=2, *, rows=10):
        return x + y + rows

    assert f.defaults == {"y": 2}
    assert f.config == {"rows": 10}
    assert f(1) == 13
    assert f(1, 1, rows=1) == 3


def test_annotations_type_the_outputs():
    @op
    def plain() -> int:
        return 1

    @op
    def wrapped() -> Output[str]:
        return Output("x")

    @op(out={"a": Out(), "b": Out()})
    def several() -> tuple[int, str]:
        return 1, "x"

    assert plain.outs["result"].dagster_type is int
    assert wrapped.outs["result"].dagster_type is str
    assert [out.dagster_type for out in several.outs.values()] == [int, str]


# -- direct invocation


def test_an_op_is_a_function_outside_graphs():
    @op
    def add(left: int, right: int) -> int:
        return left + right

    assert add(1, 2) == add(1, right=2) == add(left=1, right=2) == 3


def test_wrong_arguments_of_a_direct_call():
    @op
    def add(left, right):
        return left + right

    for call in (lambda: add(1), lambda: add(1, 2, 3), lambda: add(1, 2, other=3), lambda: add(1, 2, left=1)):
        with pytest.raises(InvalidInvocationError):
            call()


def test_config_without_default_must_be_given():
    @op
    def f(x, *, rows):
        return x * rows

    assert f(2, rows=3) == 6
    with pytest.raises(InvalidInvocationError, match="rows"):
        f(2)


def test_the_context_must_be_given_where_it_is_declared_and_may_be_none():
    @op
    def f(context, x):
        return context, x

    assert f(None, 1) == (None, 1)
    assert f(context=None, x=1) == (None, 1)
    with pytest.raises(InvalidInvocationError, match="needs a context"):
        f(x=1)


def test_types_are_checked_on_the_way_in_and_out():
    @op
    def f(x: int) -> int:
        return x or "none"

    assert f(True) is True
    with pytest.raises(TypeCheckError, match="input 'x'"):
        f(1.0)
    with pytest.raises(TypeCheckError, match="output 'result'"):
        f(0)

    @op(out={"a": Out(int), "b": Out(str)})
    def several():
        return 1, 2

    with pytest.raises(TypeCheckError, match="output 'b'"):
        several()


def test_the_raw_return_value_comes_back():
    @op
    def wrapped() -> Output[int]:
        return Output(1)

    @op
    def generator():
        yield Output(1)

    @op
    async def later():
        return 1

    assert isinstance(wrapped(), Output)
    assert [item.value for item in generator()] == [1]
    assert asyncio.run(later()) == 1


def test_assets_are_called_alike():
    @asset
    def clean(raw: list[int]) -> list[int]:
        return sorted(raw)

    @multi_asset(outs={"a": AssetOut(), "b": AssetOut()})
    def both(raw):
        return raw, raw

    assert clean([2, 1]) == [1, 2]
    assert both(1) == (1, 1)
    with pytest.raises(TypeCheckError):
        clean(["x"])
    with pytest.raises(InvalidInvocationError):
        clean()


def test_a_graph_asset_is_not_called():
    @op
    def one():
        return 1

    @graph_asset
    def report():
        return one()

    with pytest.raises(InvalidInvocationError, match="cannot be called") as caught:
        report()
    assert "materialize" in caught.value.remedy
