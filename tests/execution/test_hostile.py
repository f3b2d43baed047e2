"""Objects whose special methods raise, lie or never end: the step fails by name, its run is recorded, independent steps run."""

import itertools

import pytest
from hostile import CASES, HOW, PLACES, hostile, wrong
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stepwell
from stepwell.kernel_runtime.errors import StepwellError, UserObjectError
from stepwell.kernel_runtime.session import get_session


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return get_session().open(tmp_path_factory.mktemp("hostile") / "store")


@given(st.sampled_from([case for case in CASES if case[2] != "for ever"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_an_object_does_the_run_is_recorded_and_others_run(store, case):
    assert wrong(store, *case) == ""


ENDLESS = [
    (place, method)
    for place, methods in {
        "value": ("__reduce_ex__", "__getstate__", "shape", "__class__"),
        "metadata": ("__str__", "__repr__"),
        "metadata_key": ("__str__",),
        "exception": ("__str__", "__notes__"),
        "argument_of_exception": ("__repr__",),
        "typed": ("__class__",),
        "changed_global": ("__reduce_ex__",),
        "class_itself": ("__hash__",),
    }.items()
    for method in methods
]


@pytest.mark.parametrize(("place", "method"), ENDLESS)
def test_what_takes_for_ever_is_ended_by_an_interrupt(store, place, method):
    assert wrong(store, place, method, "for ever") == ""


def test_the_error_names_step_and_doing(store):
    @stepwell.asset
    def bad():
        return stepwell.Output(1, metadata={"size": hostile("__str__", "raises")()})

    with pytest.raises(UserObjectError, match=r"step 'bad' failed: the metadata 'size' raised ValueError") as raised:
        stepwell.materialize([bad], store=store)
    assert "hostile" in raised.value.where
    (run,) = store.runs(limit=1)
    assert run.status == "failure"


def test_an_interrupt_that_an_object_raises_is_no_interrupt_of_the_users(store):
    cls = hostile("__reduce_ex__", "interrupts")

    @stepwell.asset
    def bad():
        return cls()

    result = stepwell.materialize([bad], store=store, raise_on_error=False)
    assert result.status == "failure"
    assert issubclass(type(result.error), StepwellError)


def test_metadata_without_an_end_is_cut_off(store):
    branching = []
    branching += [branching, branching]

    class Endless(dict):
        def items(self):
            return (("a", 1) for _ in itertools.repeat(1))

    @stepwell.asset
    def good():
        return stepwell.Output(
            1, metadata={"number": 10**5000, "text": "x" * 50_000_000, "branching": branching, "endless": Endless()}
        )

    assert stepwell.materialize([good], store=store).success
    metadata = store.current("good")[0].materialization.metadata
    assert metadata["number"] == "an integer of 16,610 bits"
    assert metadata["text"].endswith("… (50,000,000 characters)")
    assert len(str(metadata)) < 1_000_000


def test_metadata_that_holds_itself_and_subclasses_of_plain_types_are_kept_plain(store):
    held: dict = {"n": True}
    held["self"] = held
    text = hostile("__repr__", "raises", str)("text")
    number = hostile("__repr__", "raises", int)(5)

    @stepwell.asset
    def good():
        return stepwell.Output(1, metadata={"held": held, "text": text, "number": number})

    stepwell.materialize([good], store=store)
    metadata = store.current("good")[0].materialization.metadata
    assert metadata["text"] == "text"
    assert metadata["number"] == 5
    assert metadata["held"]["self"]["self"]["n"] is True


def test_every_place_and_every_way_is_tried():
    assert len(CASES) > 4000
    assert {place.__name__ for place in PLACES} == {case[0] for case in CASES}
    assert set(HOW) == {case[2] for case in CASES}
