"""Classes that a library compiles, each with an instance and edits of its text: those that count, and those that do not."""

# ruff: noqa: ISC004

# By name: imports, the class, an expression for an instance, edits that count, edits that do not; an edit is (old, new) in the class's text.
CLASSES = {
    "pydantic": (
        "from pydantic import BaseModel, Field",
        "class Model(BaseModel):\n    name: str\n    age: int = Field(3, ge=0)\n",
        "Model(name='a')",
        [("ge=0", "ge=1"), ("Field(3", "Field(4"), ("age: int", "age: float"), ("    age", "    years")],
        [("class Model(BaseModel):\n", "class Model(BaseModel):\n    # A comment.\n\n")],
    ),
    "pydantic with validators": (
        "from pydantic import BaseModel, field_validator, model_validator, computed_field, field_serializer",
        "class Model(BaseModel):\n    v: int\n\n    @field_validator('v')\n    @classmethod\n    def check(cls, v):\n        return v + 1\n\n"
        "    @model_validator(mode='after')\n    def whole(self):\n        assert self.v < 1000\n        return self\n\n"
        "    @computed_field\n    @property\n    def double(self) -> int:\n        return self.v * 2\n\n"
        "    @field_serializer('v')\n    def written(self, v):\n        return str(v)\n",
        "Model(v=1)",
        [
            ("v + 1", "v + 2"),
            ("< 1000", "< 999"),
            ("* 2", "* 3"),
            ("str(v)", "repr(v)"),
            ("mode='after'", "mode='before'"),
            (
                "    @field_validator('v')\n    @classmethod",
                "    @field_validator('v', mode='before')\n    @classmethod",
            ),
        ],
        [("        return v + 1", "\n        return (\n            v + 1)")],
    ),
    "pydantic with a config": (
        "from pydantic import BaseModel, ConfigDict, PrivateAttr",
        "class Model(BaseModel):\n    model_config = ConfigDict(frozen=False, extra='allow')\n    v: int = 1\n    _seen: list = PrivateAttr(default_factory=list)\n",
        "Model(v=2, other=5)",
        [
            ("frozen=False", "frozen=True"),
            ("extra='allow'", "extra='ignore'"),
            ("default_factory=list", "default_factory=dict"),
        ],
        [],
    ),
    "pydantic with generics": (
        "from typing import Generic, TypeVar\nfrom pydantic import BaseModel\nT = TypeVar('T')",
        "class Box(BaseModel, Generic[T]):\n    v: T\n\nclass Model(BaseModel):\n    box: Box[int]\n    boxes: list[Box[str]] = []\n",
        "Model(box=Box[int](v=1), boxes=[Box[str](v='a')])",
        [("Box[int]", "Box[float]"), ("    v: T", "    w: T")],
        [],
    ),
    "pydantic with a union": (
        "from typing import Annotated, Literal, Union\nfrom pydantic import BaseModel, Field",
        "class Cat(BaseModel):\n    kind: Literal['cat'] = 'cat'\n    lives: int = 9\n\nclass Dog(BaseModel):\n    kind: Literal['dog'] = 'dog'\n\n"
        "class Model(BaseModel):\n    pet: Annotated[Union[Cat, Dog], Field(discriminator='kind')]\n    parent: 'Model | None' = None\n",
        "Model(pet=Cat(lives=3), parent=Model(pet=Dog()))",
        [("lives: int = 9", "lives: int = 7"), ("Literal['dog'] = 'dog'", "Literal['dog', 'wolf'] = 'dog'")],
        [],
    ),
    "pydantic root and derived": (
        "from pydantic import BaseModel, RootModel, Field",
        "class Base(BaseModel):\n    a: int = 1\n\nclass Names(RootModel[list[str]]):\n    pass\n\nclass Model(Base):\n    names: Names = Names(['x'])\n"
        "    made: list[int] = Field(default_factory=lambda: [1])\n",
        "Model()",
        [
            ("a: int = 1", "a: int = 2"),
            ("lambda: [1]", "lambda: [2]"),
            ("Names(['x'])", "Names(['y'])"),
            ("list[str]", "tuple[str, ...]"),
        ],
        [],
    ),
    "pydantic dataclass": (
        "from pydantic.dataclasses import dataclass\nfrom pydantic import Field",
        "@dataclass\nclass Model:\n    a: int\n    b: list[str] = Field(default_factory=list, max_length=3)\n",
        "Model(1)",
        [("max_length=3", "max_length=4"), ("a: int", "a: float"), ("@dataclass", "@dataclass(frozen=True)")],
        [],
    ),
    "attrs": (
        "import attrs",
        "@attrs.define\nclass Model:\n    a: int = attrs.field(validator=attrs.validators.gt(0), converter=int)\n    b: list = attrs.field(factory=list)\n\n"
        "    @b.validator\n    def check(self, attribute, value):\n        assert len(value) < 9\n\n    def total(self):\n        return self.a + 1\n",
        "Model(1, [2])",
        [
            ("gt(0)", "gt(-1)"),
            ("converter=int", "converter=float"),
            ("< 9", "< 8"),
            ("self.a + 1", "self.a + 2"),
            ("attrs.define", "attrs.frozen"),
            ("factory=list", "factory=lambda: [1]"),
        ],
        [("    def total", "\n    # A comment.\n    def total")],
    ),
    "attrs, the old names": (
        "import attr",
        "@attr.s(slots=False, order=True)\nclass Model:\n    a = attr.ib(default=1)\n    b = attr.ib(default=attr.Factory(lambda self: self.a, takes_self=True))\n",
        "Model(2)",
        [("default=1", "default=2"), ("order=True", "order=False"), ("self: self.a,", "self: self.a + 1,")],
        [],
    ),
    "sqlalchemy": (
        "from sqlalchemy import ForeignKey, String\nfrom sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship",
        "class Base(DeclarativeBase):\n    pass\n\nclass Model(Base):\n    __tablename__ = 'models'\n    id: Mapped[int] = mapped_column(primary_key=True)\n"
        "    name: Mapped[str] = mapped_column(String(30), default='x')\n    parts: Mapped[list['Part']] = relationship(back_populates='model')\n\n"
        "    def shown(self):\n        return self.name + '!'\n\n"
        "class Part(Base):\n    __tablename__ = 'parts'\n    id: Mapped[int] = mapped_column(primary_key=True)\n"
        "    model_id: Mapped[int] = mapped_column(ForeignKey('models.id'))\n    model: Mapped['Model'] = relationship(back_populates='parts')\n",
        "Model(id=1, name='a')",
        [("String(30)", "String(40)"), ("default='x'", "default='y'"), ("'models'\n", "'others'\n"), ("'!'", "'?'")],
        [],
    ),
    "msgspec": (
        "import msgspec\nfrom typing import Annotated",
        "class Model(msgspec.Struct, frozen=False):\n    a: int\n    b: Annotated[str, msgspec.Meta(max_length=5)] = 'x'\n    c: list[int] = []\n\n"
        "    def __post_init__(self):\n        assert self.a < 100\n",
        "Model(1)",
        [
            ("max_length=5", "max_length=6"),
            ("= 'x'", "= 'y'"),
            ("< 100", "< 99"),
            ("frozen=False", "frozen=True"),
            ("a: int", "a: float"),
        ],
        [],
    ),
    "TypedDict": (
        "from typing import TypedDict, NotRequired",
        "class Model(TypedDict, total=True):\n    a: int\n    b: NotRequired[str]\n",
        "Model(a=1)",
        [("a: int", "a: float"), ("NotRequired[str]", "str"), ("total=True", "total=False")],
        [],
    ),
    "NamedTuple": (
        "from typing import NamedTuple",
        "class Model(NamedTuple):\n    a: int\n    b: str = 'x'\n\n    def both(self):\n        return self.a, self.b\n",
        "Model(1)",
        [
            ("= 'x'", "= 'y'"),
            ("self.a, self.b", "self.b, self.a"),
            ("    a: int\n    b", "    c: int\n    b"),
            ("a: int", "a: float"),
        ],
        [],
    ),
    "namedtuple": (
        "from collections import namedtuple",
        "Model = namedtuple('Model', 'a b', defaults=[1])\n",
        "Model(2)",
        [("'a b'", "'a c'"), ("[1]", "[2]")],
        [],
    ),
    "Enum": (
        "import enum",
        "class Model(enum.Enum):\n    A = 1\n    B = enum.auto()\n\n    def next(self):\n        return Model.B\n",
        "Model.A",
        [("A = 1", "A = 5"), ("return Model.B", "return Model.A"), ("enum.Enum", "enum.IntEnum")],
        [],
    ),
    "Flag": (
        "import enum",
        "class Model(enum.Flag):\n    A = enum.auto()\n    B = enum.auto()\n    AB = A | B\n",
        "Model.A | Model.B",
        [("AB = A | B", "AB = A")],
        [],
    ),
    "slotted dataclass": (
        "from dataclasses import dataclass, field",
        "@dataclass(slots=True, order=True)\nclass Model:\n    a: int\n    b: list = field(default_factory=list, repr=False)\n\n"
        "    def __post_init__(self):\n        self.a += 1\n",
        "Model(1)",
        [
            ("order=True", "order=False"),
            ("repr=False", "repr=True"),
            ("self.a += 1", "self.a += 2"),
            ("default_factory=list", "default_factory=set"),
        ],
        [],
    ),
    "frozen keyword dataclass": (
        "from dataclasses import dataclass, field, KW_ONLY\nfrom typing import ClassVar",
        "@dataclass(frozen=True)\nclass Model:\n    K: ClassVar[int] = 7\n    a: int\n    _: KW_ONLY\n    b: int = field(default=2, compare=False)\n",
        "Model(1)",
        [("= 7", "= 8"), ("default=2", "default=3"), ("compare=False", "compare=True")],
        [],
    ),
    "Generic": (
        "from typing import Generic, TypeVar\nT = TypeVar('T', bound=int)",
        "class Base(Generic[T]):\n    def __init__(self, v: T):\n        self.v = v\n\nclass Model(Base[bool]):\n    def get(self):\n        return self.v\n",
        "Model(True)",
        [("Base[bool]", "Base[int]"), ("return self.v", "return not self.v")],
        [],
    ),
    "Protocol and ABC": (
        "import abc\nfrom typing import Protocol, runtime_checkable",
        "@runtime_checkable\nclass Sized(Protocol):\n    def size(self) -> int: ...\n\nclass Base(abc.ABC):\n    @abc.abstractmethod\n    def size(self): ...\n\n"
        "class Model(Base, Sized):\n    def size(self):\n        return 4\n",
        "Model()",
        [("return 4", "return 5"), ("    @abc.abstractmethod\n", "")],
        [],
    ),
    "plain with slots and descriptors": (
        "import functools",
        "class Positive:\n    def __set_name__(self, owner, name):\n        self.name = '_' + name\n    def __get__(self, item, owner=None):\n"
        "        return self if item is None else getattr(item, self.name)\n    def __set__(self, item, value):\n        assert value > 0\n"
        "        setattr(item, self.name, value)\n\nclass Model:\n    v = Positive()\n    def __init__(self, v):\n        self.v = v\n"
        "    @functools.cached_property\n    def double(self):\n        return self.v * 2\n    @property\n    def half(self):\n        return self.v / 2\n"
        "    @functools.singledispatchmethod\n    def take(self, x):\n        return x\n    @take.register\n    def _(self, x: int):\n        return x + 1\n",
        "Model(4)",
        [
            ("value > 0", "value > 1"),
            ("self.v * 2", "self.v * 3"),
            ("self.v / 2", "self.v / 3"),
            ("return x + 1", "return x + 2"),
        ],
        [],
    ),
}
