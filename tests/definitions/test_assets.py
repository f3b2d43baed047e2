"""Assets: keys, upstreams, groups, and what is refused at definition."""

import pytest

from stepwell import AssetIn, AssetKey, AssetOut, Nothing, SourceAsset, asset, graph_asset, multi_asset, op
from stepwell.kernel_runtime.errors import InvalidDefinitionError, InvariantViolationError


def keys(*written):
    return tuple(AssetKey.from_user_string(key) for key in written)


def test_the_key_is_prefix_and_name():
    assert asset(name="x")(lambda: 1).key == AssetKey("x")
    assert asset(name="x", key_prefix="raw")(lambda: 1).key == AssetKey(["raw", "x"])
    assert asset(name="x", key_prefix=["raw", "eu"])(lambda: 1).key == AssetKey(["raw", "eu", "x"])
    assert asset(key="raw/x")(lambda: 1).key == AssetKey(["raw", "x"])
    assert asset(key=AssetKey(["raw", "x"]))(lambda: 1).key.to_user_string() == "raw/x"


def test_a_key_together_with_name_or_prefix_is_refused():
    for more in ({"name": "x"}, {"key_prefix": "raw"}):
        with pytest.raises(InvalidDefinitionError, match="key= cannot be combined with"):
            asset(key="raw/y", **more)(lambda: 1)
    for made in (AssetIn, AssetOut):
        with pytest.raises(InvalidDefinitionError, match="key= cannot be combined with"):
            made(key="raw/y", key_prefix="raw")


@pytest.mark.parametrize("name", ["a/b", "a.b", "a b", "größe", "context", "a\n"])
def test_a_name_that_cannot_be_one_is_refused(name):
    with pytest.raises(InvalidDefinitionError):
        asset(name=name)(lambda: 1)
    with pytest.raises(InvalidDefinitionError):
        multi_asset(outs={name: AssetOut(), "other": AssetOut()}, name="m")(lambda: (1, 2))


def test_a_lambda_needs_a_name():
    with pytest.raises(InvalidDefinitionError, match="<lambda>"):
        asset(lambda: 1)


def test_asset_keys():
    assert AssetKey("a") == AssetKey(["a"])
    assert AssetKey.from_user_string("a/b").path == ("a", "b")
    assert AssetKey("b").with_prefix("a") == AssetKey(["a", "b"])
    assert str(AssetKey(["a", "b"])) == "a/b"
    assert len({AssetKey("a"), AssetKey(["a"])}) == 1
    for wrong in ("a/b", "a.b", "", [], [""], [1]):
        with pytest.raises(InvalidDefinitionError):
            AssetKey(wrong)


def test_parameters_ins_and_deps_are_upstream():
    @asset(ins={"frame": AssetIn("raw/flights"), "other": AssetIn(key_prefix="raw")}, deps=["setup", SourceAsset("raw/x")])
    def clean(context, frame, other, plain):
        return frame

    assert clean.upstream_keys == keys("raw/flights", "raw/other", "plain", "setup", "raw/x")
    assert clean.deps == keys("setup", "raw/x")


def test_deps_may_be_definitions():
    @multi_asset(outs={"train": AssetOut(), "test": AssetOut()})
    def split():
        return 1, 2

    @asset(deps=[split, "x", AssetKey("y")])
    def model():
        return 1

    assert model.deps == keys("train", "test", "x", "y")


def test_the_prefix_of_an_asset_is_not_its_parameters():
    @asset(key_prefix="clean")
    def flights(raw):
        return raw

    assert flights.upstream_keys == keys("raw")


def test_ins_that_name_no_parameter_are_refused():
    with pytest.raises(InvalidDefinitionError, match="'y', which is not a parameter"):
        asset(name="x", ins={"y": AssetIn()})(lambda: 1)
    with pytest.raises(InvalidDefinitionError, match="'y', which is not a parameter"):

        @op
        def one():
            return 1

        graph_asset(name="x", ins={"y": AssetIn()})(lambda: [one()][0])


def test_an_in_of_nothing_only_orders():
    @asset(ins={"setup": AssetIn("raw/setup", dagster_type=Nothing)})
    def model():
        return 1

    assert model.deps == keys("raw/setup")
    assert model.keys_by_input == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: asset(name="x")(lambda x: x),
        lambda: asset(name="x", deps=["x"])(lambda: 1),
        lambda: asset(name="y", key_prefix="raw", ins={"y": AssetIn("raw/y")})(lambda y: y),
        lambda: multi_asset(outs={"x": AssetOut(), "y": AssetOut()}, name="m")(lambda x: (1, 2)),
    ],
)
def test_an_asset_that_depends_on_itself_is_refused(make):
    with pytest.raises(InvalidDefinitionError, match="depends on itself") as caught:
        make()
    assert "a name that differs" in caught.value.remedy
    assert "test_assets.py" in caught.value.where


def test_a_multi_asset_has_a_key_per_output():
    @multi_asset(
        outs={"train": AssetOut(), "test": AssetOut(key_prefix="raw"), "rest": AssetOut(key="a/b", group_name="g")},
        group_name="h",
    )
    def split(clean):
        return 1, 2, 3

    assert split.keys == keys("train", "raw/test", "a/b")
    assert [split.group_name(key) for key in split.keys] == ["h", "h", "g"]
    assert split.upstream_keys == keys("clean")
    with pytest.raises(InvariantViolationError, match="defines 3 assets"):
        split.key
    with pytest.raises(InvalidDefinitionError, match="same asset key"):
        multi_asset(outs={"a": AssetOut(key="x"), "b": AssetOut(key="x")}, name="m")(lambda: (1, 2))
    with pytest.raises(InvalidDefinitionError, match="at least one output"):
        multi_asset(outs={})


def test_the_default_group():
    assert asset(name="x")(lambda: 1).group_name(AssetKey("x")) == "default"
    assert asset(name="x", group_name="g")(lambda: 1).group_name(AssetKey("x")) == "g"


def test_a_graph_asset_reads_its_inputs_and_what_its_body_names():
    @asset
    def raw():
        return 1

    @op
    def join(left, right):
        return left, right

    @graph_asset(ins={"other": AssetIn("raw/other")})
    def report(other):
        return join(other, raw)

    assert report.upstream_keys == keys("raw/other", "raw")


def test_to_source_asset():
    @asset(key_prefix="raw", group_name="g")
    def flights():
        """Rows of flights."""
        return 1

    source = flights.to_source_asset()
    assert (source.key, source.group_name, source.description) == (flights.key, "g", "Rows of flights.")

    @multi_asset(outs={"train": AssetOut(), "test": AssetOut()})
    def split():
        return 1, 2

    assert split.to_source_asset("train").key == AssetKey("train")
    with pytest.raises(InvariantViolationError, match="defines several assets"):
        split.to_source_asset()
    with pytest.raises(InvariantViolationError, match="does not define the asset other"):
        split.to_source_asset("other")


def test_an_attribute_that_the_value_would_have_says_how_to_get_it():
    @asset
    def clean():
        return 1

    with pytest.raises(AttributeError, match=r"clean.load\(\)"):
        clean.head
