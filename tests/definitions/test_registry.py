"""What is defined in this process: a cell run again replaces and withdraws."""

import pytest

from stepwell import AssetOut, SourceAsset, asset, job, multi_asset, op
from stepwell.kernel_runtime.definitions.registry import Registry
from stepwell.kernel_runtime.errors import DuplicateKeyError, InvalidDefinitionError


def make(name):
    return asset(name=name)(lambda: 1)


def pair(*names):
    return multi_asset(outs={name: AssetOut() for name in names}, name="pair")(lambda: (1, 2))


def make_job(name):
    @op
    def one():
        return 1

    return job(name=name)(lambda: one() and None)


@pytest.fixture
def registry():
    return Registry()


def cell(registry, origin, *definitions, succeeded=True):
    registry.begin_cell(origin)
    for definition in definitions:
        registry.register(definition)
    return registry.end_cell(succeeded=succeeded)


def test_a_cell_run_again_replaces_what_it_defined_and_withdraws_the_rest(registry):
    old, new = make("a"), make("a")
    assert cell(registry, "1", old, make("b")) == ()
    assert cell(registry, "1", new) == ("b",)
    assert list(registry.assets) == ["a"]
    assert registry.assets["a"].definition is new


def test_a_failed_cell_withdraws_nothing(registry):
    cell(registry, "1", make("a"), make("b"))
    assert cell(registry, "1", make("a"), succeeded=False) == ()
    assert set(registry.assets) == {"a", "b"}


def test_another_cells_key_is_taken_over_and_told(registry):
    told = []
    registry.on_replacement = lambda *what: told.append(what[0])
    cell(registry, "1", make("a"))
    cell(registry, "1", make("a"))
    assert told == []
    cell(registry, "2", make("a"))
    assert told == ["a"]
    # The first cell does not take away what is the second one's by now.
    assert cell(registry, "1") == ()
    assert list(registry.assets) == ["a"]


def test_a_definition_of_several_keys_is_replaced_whole(registry):
    cell(registry, "1", pair("a", "b"))
    cell(registry, "2", make("a"))
    assert list(registry.assets) == ["a"]
    cell(registry, "3", pair("a", "c"))
    registry.withdraw("c")
    assert registry.assets == {}


def test_a_refused_replacement_leaves_the_registry_as_it_was(registry):
    def refuse(key, old, new):
        raise DuplicateKeyError(f"{key} is defined in two cells")

    cell(registry, "3", make("a"))
    cell(registry, "2", make("b"), make_job("z"))
    before = dict(registry.assets), dict(registry.jobs)
    registry.on_replacement = refuse
    registry.begin_cell("3")
    with pytest.raises(DuplicateKeyError):
        registry.register(pair("a", "b"))
    registry.end_cell(succeeded=False)
    assert (dict(registry.assets), dict(registry.jobs)) == before


def test_an_asset_and_a_job_of_one_name_are_refused(registry):
    cell(registry, "1", make("a"))
    with pytest.raises(InvalidDefinitionError, match="'a' is already the name of an asset"):
        cell(registry, "2", make_job("a"))
    # The same cell may turn one into the other.
    registry.begin_cell("1")
    registry.register(make_job("a"))
    registry.end_cell()
    assert (list(registry.assets), list(registry.jobs)) == ([], ["a"])


def test_definitions_come_once_and_in_order(registry):
    both, source = pair("a", "b"), SourceAsset("c")
    for definition in (both, source):
        registry.register(definition)
    assert list(registry.definitions()) == [both, source]


def test_changes_are_told(registry):
    told = []
    registry.on_change = told.append
    registry.register(pair("a", "b"))
    registry.withdraw("a")
    assert told == [("a", "b"), ("a", "b")]


def test_only_what_is_defined_in_main_registers_itself(python):
    out = python("""
        import stepwell
        from stepwell.kernel_runtime.session import get_session

        @stepwell.asset
        def here():
            return 1

        space = {"__name__": "elsewhere"}
        exec("import stepwell\\n@stepwell.asset\\ndef there(): return 1", space)
        print(list(get_session().registry.assets))
    """)
    assert out == "['here']\n"
