"""What passes as a value of an annotation."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence

import pytest

from stepwell.kernel_runtime.definitions.declarations import Nothing, checker, is_nothing, type_name


class Base:
    pass


class Derived(Base):
    pass


class Sized(typing.Protocol):
    def size(self): ...


PASSES = [
    (int, True),
    (int, 1),
    (float, 1.0),
    (list[int], [1, 2]),
    (list[int], []),
    (list, ["anything"]),
    (dict[str, int], {"a": 1}),
    (Mapping[str, int], {"a": 1}),
    (Sequence[int], (1, 2)),
    (set[str], {"a"}),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (int | None, None),
    (typing.Optional[int], 3),  # noqa: UP045
    (typing.Union[int, str], "a"),  # noqa: UP007
    (typing.Any, object()),
    (object, 1),
    (Base, Derived()),
    (typing.Literal["a", 1], "a"),
    (typing.Annotated[int, "metres"], 3),
    (Sized, 1),
    (list[list[int]], [[1], []]),
    ("forward", 1),
    (typing.TypeVar("T"), 1),
    (typing.Callable[[int], int], len),
]
FAILS = [
    (float, 1),
    (int, 1.0),
    (int, None),
    (str, b"a"),
    (list[int], [1, "a"]),
    (list[int], (1, 2)),
    (dict[str, int], {"a": "b"}),
    (dict[str, int], {1: 1}),
    (set[str], {1}),
    (tuple[int, str], (1, 2)),
    (tuple[int, str], (1,)),
    (tuple[int, ...], (1, "a")),
    (int | None, "a"),
    (Derived, Base()),
    (typing.Literal["a", 1], "b"),
    (typing.Literal[1], True),
    (typing.Annotated[int, "metres"], "a"),
    (list[list[int]], [[1], ["a"]]),
    (None, 1),
]


@pytest.mark.parametrize(("hint", "value"), PASSES)
def test_passes(hint, value):
    check = checker(hint)
    assert check is None or check(value)


@pytest.mark.parametrize(("hint", "value"), FAILS)
def test_does_not_pass(hint, value):
    assert not checker(hint)(value)


def test_nothing():
    assert is_nothing(Nothing)
    assert is_nothing(None)
    assert not is_nothing(int)
    with pytest.raises(TypeError):
        Nothing()


def test_a_type_is_named_as_a_reader_knows_it():
    @dataclasses.dataclass
    class Row:
        x: int

    assert type_name(int) == "int"
    assert type_name(Row).endswith("Row")
    assert type_name(list[int]) == "list[int]"
