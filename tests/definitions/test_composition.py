"""What composing a graph makes, and what it refuses (the rules of the model, section on composition)."""

import pytest

from stepwell import AssetKey, GraphOut, In, Nothing, Out, SourceAsset, asset, graph, graph_asset, job, op
from stepwell.kernel_runtime.errors import CycleError, InvalidDefinitionError, InvariantViolationError


@op
def one():
    return 1


@op
def two():
    return 2


@op
def add(left, right):
    return left + right


@op
def total(values):
    return sum(values)


@op(out={"first": Out(), "second": Out()})
def pair():
    return 1, 2


@op
def top(frame, *, rows=10, name):
    return frame[:rows], name


def refused(match, kind=InvalidDefinitionError):
    return pytest.raises(kind, match=match)


def test_the_same_op_twice_gets_a_number():
    @job
    def twice():
        add(one(), one())

    assert list(twice.graph.nodes) == ["one", "one_2", "add"]


def test_an_alias_names_the_node():
    @job
    def named():
        add(one.alias("left")(), one.alias("right")())

    assert list(named.graph.nodes) == ["left", "right", "add"]


def test_an_alias_twice_is_refused():
    with refused("two nodes have the name 'left'"):

        @job
        def twice():
            add(one.alias("left")(), two.alias("left")())


def test_two_definitions_of_one_name_are_refused():
    other = op(name="one")(lambda: 3)
    with refused("two different definitions have the name 'one'"):

        @job
        def clash():
            add(one(), other())


@pytest.mark.parametrize("name", ["a-b", "a b", "", "größe", "a.b", "a/b", "context", "input", "type", "a\n"])
def test_a_name_that_cannot_be_one_is_refused(name):
    for make in (
        lambda: op(name=name or " ")(lambda: 1),
        lambda: one.alias(name),
        lambda: graph(name=name or " ")(lambda: [one()][0]),
    ):
        with refused("name"):
            make()


@pytest.mark.parametrize("value", [3, "text", None, {"a": 1}, [1]])
def test_a_constant_as_an_input_is_refused_and_the_remedy_is_config(value):
    with refused("'left' of 'add' got a value of type") as caught:

        @job
        def constant():
            add(value, one())

    assert "keyword-only" in caught.value.remedy
    assert "constant" in str(caught.value)
    assert "test_composition.py" in caught.value.where


def test_config_takes_a_constant_and_nothing_else():
    @job
    def configured():
        top(one(), rows=3, name="x")

    assert configured.graph.nodes["top"].config == {"rows": 3, "name": "x"}
    with refused("config must be a constant"):

        @job
        def connected():
            top(one(), rows=two(), name="x")

    with refused("'name' of 'top' has no default"):

        @job
        def unset():
            top(one())


def test_config_cannot_be_given_by_position():
    with refused("got too many positional arguments: 2 instead of at most 1"):

        @job
        def positional():
            top(one(), 3)


def test_an_unused_input_is_refused():
    with refused("'unused' is not used"):

        @graph
        def lazy(used, unused):
            return total(used)


def test_what_is_no_handle_cannot_be_returned():
    with refused("of type int, not the result of a call"):

        @graph
        def number():
            one()
            return 3

    with refused("an input of the graph itself"):

        @graph
        def through(x):
            total(x)
            return x


def test_a_declared_output_must_be_returned():
    with refused("'b' is declared but not returned"):

        @graph(out={"a": GraphOut(), "b": GraphOut()})
        def half():
            return {"a": one()}

    with refused("'c' is returned but not declared"):

        @graph(out={"a": GraphOut()})
        def more():
            return {"a": one(), "c": two()}

    with refused("one output is returned, but 2 are declared"):

        @graph(out={"a": GraphOut(), "b": GraphOut()})
        def alone():
            return one()

    with refused("the number of returned outputs is 3, but the number of declared outputs is 2"):

        @graph(out={"a": GraphOut(), "b": GraphOut()})
        def three():
            return one(), two(), one()


def test_arithmetic_on_a_handle_is_a_type_error():
    with pytest.raises(TypeError):

        @job
        def arithmetic():
            one() + 1


def test_one_output_cannot_be_unpacked():
    with pytest.raises(InvariantViolationError, match="cannot be unpacked"):

        @job
        def unpacked():
            _a, _b = one()


def test_several_outputs_are_named_and_unpacked():
    @job
    def both():
        first, second = pair()
        add(first, pair.alias("again")().second)
        total([second])

    assert both.graph.nodes["add"].connections["right"].sources[0].output == "second"


def test_all_outputs_of_a_node_at_once_are_no_input():
    with refused("all outputs of another node"):

        @job
        def whole():
            total(pair())


@pytest.mark.parametrize("names", [("class", "def"), ("_x", "y"), ("1st", "2nd")])
def test_outputs_may_be_called_what_python_cannot_spell(names):
    odd = op(name="odd", out={name: Out() for name in names})(lambda: (1, 2))

    @job
    def spelled():
        found = odd()
        total([found[0], found[1]])

    assert [source.output for source in spelled.graph.nodes["total"].connections["values"].sources] == list(names)


def test_a_list_of_handles_is_a_fan_in():
    @job
    def fan():
        total([one(), two()])

    connection = fan.graph.nodes["total"].connections["values"]
    assert connection.fan_in
    assert [source.node for source in connection.sources] == ["one", "two"]


def test_a_definition_that_was_not_called_is_no_input():
    with refused("got an op or graph instead of its result"):

        @job
        def uncalled():
            total(one)


def test_unknown_and_repeated_inputs_are_refused():
    with refused("has no parameter 'middle'") as caught:

        @job
        def unknown():
            add(one(), middle=two())

    assert "left, right" in caught.value.remedy
    with refused("got the input 'left' twice"):

        @job
        def repeated():
            add(one(), left=two())

    with refused("got too many positional arguments: 3 instead of at most 2"):

        @job
        def many():
            add(one(), two(), one())


def test_an_input_that_nothing_gives_is_refused_before_anything_runs(store_dir):
    @job
    def open_ended():
        add(one())

    with refused("'right' is not connected and has no default"):
        open_ended.execute(store=store_dir)
    assert not store_dir.exists()


def test_nested_graphs_have_nodes_of_their_own():
    @graph
    def inner(x):
        return total([x, one()])

    @graph
    def outer(x):
        return inner.alias("deep")(x)

    @job
    def run():
        outer(two())

    assert list(run.graph.nodes) == ["two", "outer"]
    assert list(run.graph.nodes["outer"].definition.nodes) == ["deep"]


def test_a_cycle_of_nodes_is_refused():
    # Handles exist only after their node was called, so that only a hand-made graph can have a cycle.
    from stepwell.kernel_runtime.definitions.composition import Connection, Node, NodeOutput
    from stepwell.kernel_runtime.definitions.graphs import GraphDefinition

    def node(name, needs):
        return Node(name, total, {"values": Connection((NodeOutput(needs, "result"),), fan_in=False)}, {})

    with pytest.raises(CycleError, match="depend on each other in a cycle"):
        GraphDefinition("ring", nodes={"a": node("a", "b"), "b": node("b", "a")}, ins={}, outputs={})


def test_a_graph_or_job_is_not_called():
    @graph
    def g():
        return one()

    @job
    def j():
        one()

    with pytest.raises(InvariantViolationError, match="can only be called in"):
        g()
    with pytest.raises(InvariantViolationError, match="cannot be called") as caught:
        j()
    assert "j.execute()" in caught.value.remedy


def test_an_order_only_input_takes_any_output_by_position_or_keyword():
    @op(ins={"start": In(Nothing)})
    def after():
        return 1

    @job
    def ordered():
        after(one())
        after(start=two())
        after.alias("both")([one(), two()])

    assert list(ordered.graph.nodes["both"].connections) == ["start"]


def test_a_source_asset_or_an_asset_can_be_an_input():
    @asset
    def stored():
        return 1

    @job
    def reads():
        add(SourceAsset("raw/flights"), stored)

    sources = [connection.sources[0].key for connection in reads.graph.nodes["add"].connections.values()]
    assert sources == [AssetKey(["raw", "flights"]), AssetKey("stored")]
    with refused("cannot be called while a graph is being composed"):

        @job
        def called():
            total(stored())


def test_a_graph_asset_needs_one_output():
    with refused("returns nothing"):

        @graph_asset
        def nothing():
            one()

    with refused("returns 2 outputs"):

        @graph_asset
        def several():
            return {"a": one(), "b": two()}


def test_a_failed_composition_does_not_stay_open():
    with pytest.raises(ZeroDivisionError):

        @job
        def broken():
            1 / 0

    assert one() == 1
