"""What is tried of Python."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import math
import operator
import pathlib
import re
import struct
import types
import uuid
import zoneinfo
from typing import NamedTuple

from .registered import case


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796 - an alias
    BLUE = "b"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Rank(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Trip:
    name: str
    legs: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Leg:
    start: str
    end: str = "home"


class Whole(int):
    pass


class Names(list):
    def __init__(self, *args):
        super().__init__(*args)
        self.note = "kept"


class Slotted:
    __slots__ = ("a", "unset")

    def __init__(self):
        self.a = [1]

    def __eq__(self, other):
        return type(other) is Slotted and other.a == self.a

    __hash__ = None


def shared():
    inner = [1]
    return [inner, inner, {"again": inner}]


def cyclic():
    value: list = [1]
    value.append(value)
    return value


def cyclic_mapping():
    value: dict = {}
    value["me"] = {"back": value}
    return value


def nan_of(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def defaults():
    value = collections.defaultdict(list)
    value["a"].append(1)
    return value


def instance_with_dict():
    value = types.SimpleNamespace(a=1)
    value.b = [2]
    return value


PYTHON = {
    "None": lambda: None, "True": lambda: True, "int": lambda: 7, "int of 20,000 bits": lambda: -(2**20_000), "int subclass": lambda: Whole(5),
    "float": lambda: 0.1, "-0.0": lambda: -0.0, "infinity": lambda: -math.inf, "NaN": lambda: math.nan, "NaN with a payload": lambda: nan_of(0x7FF8000000000123),
    "negative NaN": lambda: nan_of(0xFFF8000000000000), "NaN with a payload in a list": lambda: [nan_of(0x7FF8000000000123)],
    "complex": lambda: complex(-0.0, math.inf), "str": lambda: "ünïcode \0 \U0001f600", "str with a lone surrogate": lambda: "\ud800 alone",
    "list of such": lambda: ["\udfff", b"\xff"], "long str": lambda: "x" * 200_000, "bytes": lambda: bytes(range(256)), "long bytes": lambda: b"\1" * 200_000, "bytearray": lambda: bytearray(b"abc"),
    "list, tuple, dict": lambda: [1, (2.0, "x"), {"k": None}], "dict: order of keys": lambda: {"b": 1, "a": 2, 3: {}}, "empty containers": lambda: [[], (), {}, set(), frozenset()],
    "set": lambda: {1, "a", (2, 3)}, "frozenset": lambda: frozenset({1, 2}), "range": lambda: range(3, 10, 2), "slice": lambda: slice(1, None, 2), "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented, "shared references": shared, "a list that holds itself": cyclic, "a dict that holds itself": cyclic_mapping,
    "OrderedDict": lambda: collections.OrderedDict(b=1, a=2), "defaultdict": defaults, "Counter": lambda: collections.Counter("abca"),
    "deque": lambda: collections.deque([1, 2], maxlen=3), "ChainMap": lambda: collections.ChainMap({"a": 1}, {"b": 2}), "namedtuple": lambda: Point(1, 2),
    "dataclass": lambda: Trip("there", [Leg("a"), Leg("b", "c")]), "Enum": lambda: [Colour.RED, Colour.CRIMSON, Colour.BLUE], "Flag": lambda: Access.READ | Access.WRITE, "IntEnum": lambda: Rank.LOW,
    "list subclass with attributes": lambda: Names([1]), "class with slots": Slotted, "SimpleNamespace": instance_with_dict, "Decimal": lambda: [decimal.Decimal("1.10"), decimal.Decimal("-0"), decimal.Decimal("Infinity")],
    "Decimal signalling NaN": lambda: decimal.Decimal("sNaN123"), "Fraction": lambda: fractions.Fraction(-1, 3), "UUID": lambda: uuid.UUID(int=5), "date": lambda: dt.date(2026, 1, 2), "time": lambda: dt.time(1, 2, 3, 4, tzinfo=dt.UTC),
    "datetime with fold and zone": lambda: dt.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Vienna"), fold=1),
    "datetime with fold, no zone": lambda: dt.datetime(2026, 10, 25, 2, 30, fold=1), "datetime with an offset": lambda: dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=1, seconds=3), "odd")),
    "timedelta": lambda: dt.timedelta(-1, 2, 3), "zone": lambda: zoneinfo.ZoneInfo("Asia/Kolkata"), "path in a list": lambda: [pathlib.PurePosixPath("a/../b"), pathlib.Path("c")], "pattern": lambda: re.compile("a+", re.IGNORECASE),
    "type": lambda: [int, dict, Trip], "builtin function": lambda: [len, operator.add, math.sin], "partial": lambda: functools.partial(int, base=2), "method": lambda: Point(1, 2).count,
    "generic alias": lambda: list[int], "exception": lambda: ValueError("no", 3), "complex of NaN": lambda: complex(math.nan, 1),
}  # fmt: skip
for _name, _make in PYTHON.items():
    case("Python", _name, _make)
