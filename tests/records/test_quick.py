"""Records with a quicker ``__init__`` are what dataclasses make of them."""

import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from stepwell.kernel_runtime.records.bulk import quick_init
from stepwell.kernel_runtime.records.materializations import InputVersion, Materialization


@dataclass(frozen=True, slots=True)
class Slow:
    one: int
    two: str = "b"
    many: list[int] = field(default_factory=list)


@quick_init
@dataclass(frozen=True, slots=True)
class Quick:
    one: int
    two: str = "b"
    many: list[int] = field(default_factory=list)


def test_arguments_and_defaults_are_the_same():
    assert inspect.signature(Quick).parameters.keys() == inspect.signature(Slow).parameters.keys()
    for args, kwargs in [((1,), {}), ((1, "c"), {}), ((), {"one": 2, "many": [3]}), ((1, "x", [4]), {})]:
        slow, made = Slow(*args, **kwargs), Quick(*args, **kwargs)
        assert (made.one, made.two, made.many) == (slow.one, slow.two, slow.many)
    assert Quick(1).many is not Quick(1).many


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"three": 3}), ((1,), {"one": 2})])
def test_wrong_arguments_are_refused_alike(args, kwargs):
    with pytest.raises(TypeError) as slow:
        Slow(*args, **kwargs)
    with pytest.raises(TypeError) as made:
        Quick(*args, **kwargs)
    assert str(made.value) == str(slow.value).replace("Slow", "Quick")


def test_a_record_stays_frozen_equal_and_picklable():
    made = Quick(1, many=[2])
    with pytest.raises(FrozenInstanceError):
        made.one = 2
    assert made == Quick(1, "b", [2])
    assert replace(made, two="c") == Quick(1, "c", [2])
    assert pickle.loads(pickle.dumps(made)) == made


def test_the_records_of_a_step_have_their_own_defaults():
    given = ("i", "r", "k", "k", "result", "nb", "m", "c", "d", None, 1.0, 2.0)
    one, other = Materialization(*given), Materialization(*given)
    assert one == other
    assert one.metadata == {}
    assert one.metadata is not other.metadata
    assert hash(InputVersion("a", "b", "c")) == hash(InputVersion("a", "b", "c", "value"))


def test_a_class_that_checks_what_it_is_given_is_refused():
    @dataclass(frozen=True, slots=True)
    class Checked:
        one: int

        def __post_init__(self) -> None:
            raise ValueError

    with pytest.raises(TypeError, match="__post_init__"):
        quick_init(Checked)

    @dataclass(frozen=True, slots=True)
    class Named:
        one: int = field(kw_only=True)

    with pytest.raises(TypeError, match="keyword-only"):
        quick_init(Named)
