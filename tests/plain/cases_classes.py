"""Classes, and functions as values: reused while their text is the same, and the same class after a load."""

from oracle import Case


def instances(name, imports, text, make, read, isinstance_of):  # noqa: PLR0917 - a row of a table
    """Three runs of an asset that holds instances of a class of the notebook."""
    return Case(
        name,
        [
            [
                imports,
                text,
                f"%%asset made\nmade = {make}",
                f"%%asset got\ngot = {read}",
                f"same = isinstance({isinstance_of})",
            ]
        ]
        * 3,
        ["got", "same", f"({read})"],
        reused=["made", "got"],
        never="another [A-Z]",
    )


def edited(name, imports, texts, make, read):
    """The class is edited between two runs, in what counts for the value."""
    return Case(
        name, [[imports, text, f"%%asset made\nmade = {make}", f"%%asset got\ngot = {read}"] for text in texts], ["got"]
    )


PYDANTIC = "from pydantic import BaseModel, ConfigDict, computed_field, field_validator"
PERSON = "class Person(BaseModel):\n    name: str\n    age: int = 3"
VALIDATED = "class P(BaseModel):\n    v: int\n    @field_validator('v')\n    @classmethod\n    def check(cls, v):\n        return v + {}"
ALCHEMY = "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, Session\nfrom sqlalchemy import create_engine, select"
TABLE = "class Base(DeclarativeBase):\n    pass\nclass User(Base):\n    __tablename__ = 'users'\n    id: Mapped[int] = mapped_column(primary_key=True)\n    name: Mapped[str]\n    def hello(self):\n        return 'hello ' + self.name"

CASES = [
    Case(
        "pydantic_model",
        [
            [
                PYDANTIC,
                PERSON,
                "%%asset people\npeople = [Person(name='a'), Person(name='b', age=4)]",
                "%%asset ages\nages = sum(p.age for p in people)",
                "same = all(isinstance(p, Person) for p in people)",
            ]
        ]
        * 3,
        ["ages", "same"],
        reused=["people", "ages"],
        never="another Person",
    ),
    edited("pydantic_validator_edited", PYDANTIC, [VALIDATED.format(k) for k in (1, 2, 1)], "P(v=1)", "made.v"),
    edited(
        "pydantic_default_edited",
        PYDANTIC,
        [PERSON.replace("3", k) for k in ("3", "5")],
        "Person(name='a')",
        "made.age",
    ),
    edited(
        "pydantic_config_edited",
        PYDANTIC,
        [
            f"class P(BaseModel):\n    model_config = ConfigDict(str_strip_whitespace={k})\n    s: str"
            for k in ("True", "False")
        ],
        "P(s=' a ')",
        "made.s",
    ),
    edited(
        "pydantic_annotation_edited",
        PYDANTIC,
        [f"class P(BaseModel):\n    v: {kind}" for kind in ("int", "float")],
        "P(v=1)",
        "made.v",
    ),
    instances("pydantic_validator", PYDANTIC, VALIDATED.format(1), "P(v=1)", "made.v", "made, P"),
    instances(
        "pydantic_computed_field",
        PYDANTIC,
        "class P(BaseModel):\n    model_config = ConfigDict(frozen=True)\n    v: int\n    @computed_field\n    @property\n    def w(self) -> int:\n        return self.v * 2",
        "P(v=1)",
        "made.model_dump()",
        "made, P",
    ),
    instances(
        "pydantic_generic",
        PYDANTIC + "\nfrom typing import Generic, TypeVar\nT = TypeVar('T')",
        "class Box(BaseModel, Generic[T]):\n    v: T",
        "Box[int](v=1)",
        "made.v",
        "made, Box",
    ),
    instances(
        "pydantic_generic_of_a_model",
        PYDANTIC + "\nfrom typing import Generic, TypeVar\nT = TypeVar('T')\nU = TypeVar('U')",
        "class Item(BaseModel):\n    v: int\nclass Pair(BaseModel, Generic[T, U]):\n    a: T\n    b: list[U]",
        "{'p': Pair[Item, str](a={'v': 2}, b=['x'])}",
        "made['p'].a.v",
        "made['p'], Pair[Item, str]",
    ),
    edited(
        "pydantic_generic_edited",
        PYDANTIC + "\nfrom typing import Generic, TypeVar\nT = TypeVar('T')",
        [
            f"class Box(BaseModel, Generic[T]):\n    v: T\n    def twice(self):\n        return self.v * {k}"
            for k in (2, 3)
        ],
        "Box[int](v=1)",
        "made.twice()",
    ),
    instances(
        "pydantic_union_with_a_discriminator",
        "from pydantic import BaseModel, Field, TypeAdapter, RootModel, model_validator\nfrom typing import Annotated, Literal, Union",
        "class Cat(BaseModel):\n    kind: Literal['cat'] = 'cat'\n    lives: int = 9\nclass Dog(BaseModel):\n    kind: Literal['dog'] = 'dog'\nclass Zoo(RootModel[list[Annotated[Union[Cat, Dog], Field(discriminator='kind')]]]):\n    @model_validator(mode='after')\n    def some(self):\n        assert self.root\n        return self",
        "Zoo.model_validate([{'kind': 'cat'}, {'kind': 'dog'}])",
        "[type(each).__name__ for each in made.root]",
        "made.root[0], Cat",
    ),
    edited(
        "pydantic_model_validator_edited",
        "from pydantic import BaseModel, model_validator, computed_field",
        [
            f"class P(BaseModel):\n    v: int\n    @model_validator(mode='after')\n    def more(self):\n        self.v += {k}\n        return self\n    @computed_field\n    @property\n    def w(self) -> int:\n        return self.v * {k}"
            for k in (1, 2, 1)
        ],
        "P(v=1).model_dump()",
        "made",
    ),
    instances(
        "pydantic_nested",
        PYDANTIC,
        "class Inner(BaseModel):\n    v: int = 1\nclass Outer(BaseModel):\n    items: list[Inner]",
        "Outer(items=[{'v': 2}, {}])",
        "[i.v for i in made.items]",
        "made.items[0], Inner",
    ),
    instances(
        "pydantic_inherited",
        PYDANTIC,
        "class A(BaseModel):\n    v: int = 1\n    def twice(self):\n        return self.v * 2\nclass B(A):\n    w: int = 2",
        "B()",
        "made.twice() + made.w",
        "made, A",
    ),
    instances(
        "pydantic_dataclass",
        "from pydantic.dataclasses import dataclass",
        "@dataclass\nclass P:\n    v: int = 1",
        "P('4')",
        "made.v",
        "made, P",
    ),
    instances(
        "attrs_class",
        "import attrs",
        "@attrs.define\nclass P:\n    v: int = attrs.field(validator=attrs.validators.ge(0), converter=int)\n    w: list = attrs.Factory(list)",
        "P('3')",
        "made",
        "made, P",
    ),
    edited(
        "attrs_default_edited",
        "import attrs",
        [f"@attrs.define\nclass P:\n    v: int = {k}" for k in (1, 2)],
        "P()",
        "made.v",
    ),
    edited(
        "attrs_converter_edited",
        "import attrs",
        [f"@attrs.frozen\nclass P:\n    v: int = attrs.field(converter=lambda x: x * {k})" for k in (1, 2)],
        "P(3)",
        "made.v",
    ),
    instances(
        "msgspec_struct",
        "import msgspec",
        "class P(msgspec.Struct):\n    v: int = 1\n    def twice(self):\n        return self.v * 2",
        "P(4)",
        "made.twice()",
        "made, P",
    ),
    edited(
        "msgspec_method_edited",
        "import msgspec",
        [
            f"class P(msgspec.Struct):\n    v: int = 1\n    def times(self):\n        return self.v * {k}"
            for k in (2, 3)
        ],
        "P(4)",
        "made.times()",
    ),
    instances(
        "sqlalchemy_model",
        ALCHEMY,
        TABLE,
        "[User(id=1, name='a'), User(id=2, name='b')]",
        "[u.hello() for u in made]",
        "made[0], User",
    ),
    instances(
        "sqlalchemy_relationship",
        ALCHEMY + "\nfrom sqlalchemy import ForeignKey\nfrom sqlalchemy.orm import relationship",
        "class Base(DeclarativeBase):\n    pass\nclass Team(Base):\n    __tablename__ = 'teams'\n    id: Mapped[int] = mapped_column(primary_key=True)\n    players: Mapped[list['Player']] = relationship(back_populates='team')\nclass Player(Base):\n    __tablename__ = 'players'\n    id: Mapped[int] = mapped_column(primary_key=True)\n    team_id: Mapped[int] = mapped_column(ForeignKey('teams.id'))\n    team: Mapped[Team] = relationship(back_populates='players')",
        "Team(id=1, players=[Player(id=2), Player(id=3)])",
        "([p.id for p in made.players], made.players[0].team is made)",
        "made.players[0], Player",
    ),
    edited(
        "sqlalchemy_method_edited",
        ALCHEMY,
        [TABLE.replace("hello ", text) for text in ("hello ", "hi ")],
        "[User(id=1, name='a')]",
        "made[0].hello()",
    ),
    edited(
        "sqlalchemy_default_edited",
        ALCHEMY,
        [
            f"class Base(DeclarativeBase):\n    pass\nclass T(Base):\n    __tablename__ = 't'\n    id: Mapped[int] = mapped_column(primary_key=True)\n    v: Mapped[int] = mapped_column(default={k})\ndef stored():\n    engine = create_engine('sqlite://')\n    Base.metadata.create_all(engine)\n    with Session(engine) as s:\n        s.add(T(id=1))\n        s.commit()\n        return s.scalars(select(T)).one().v"
            for k in (1, 2)
        ],
        "stored()",
        "made",
    ),
    Case(
        "sqlalchemy_instance_changed_by_a_cell",
        [
            [
                ALCHEMY,
                TABLE,
                "user = User(id=1, name='a')",
                "%%asset n\nuser.name += 'b'\nn = len(user.name)",
                "here = user.hello()",
                "%%asset after\nafter = user.name",
            ]
        ]
        * 2,
        ["n", "here", "after"],
        reused=["n", "after"],
    ),
    Case(
        "sqlalchemy_session_in_the_cell",
        [
            [
                ALCHEMY,
                TABLE,
                f"NAME = '{name}'",
                "%%asset names\nengine = create_engine('sqlite://')\nBase.metadata.create_all(engine)\nwith Session(engine) as s:\n    s.add(User(name=NAME))\n    s.commit()\n    names = [u.hello() for u in s.scalars(select(User))]",
                "n = len(names)",
            ]
            for name in ("a", "a", "b")
        ],
        ["names", "n"],
    ),
    instances(
        "msgspec_tagged_union",
        "import msgspec",
        "class A(msgspec.Struct, tag='a', frozen=True):\n    v: int = 1\nclass B(msgspec.Struct, tag='b'):\n    items: list[A] = []",
        'msgspec.json.decode(b\'{"type":"b","items":[{"type":"a","v":4}]}\', type=A | B)',
        "made.items[0].v",
        "made.items[0], A",
    ),
    instances(
        "attrs_class_with_hooks",
        "import attrs",
        "def positive(_, __, value):\n    assert value > 0\n@attrs.define(slots=False)\nclass P:\n    v: int = attrs.field(validator=[positive], on_setattr=attrs.setters.validate)\n    w: list = attrs.field(factory=list, init=False)\n    def __attrs_post_init__(self):\n        self.w.append(self.v)",
        "P(3)",
        "attrs.asdict(made)",
        "made, P",
    ),
    edited(
        "attrs_validator_edited",
        "import attrs",
        [
            f"def check(_, __, value):\n    assert value > {k}\n@attrs.define\nclass P:\n    v: int = attrs.field(validator=check)\ndef tried(v):\n    try:\n        return P(v).v\n    except AssertionError:\n        return 'refused'"
            for k in (1, 5)
        ],
        "tried(3)",
        "made",
    ),
    instances(
        "typed_dict",
        "from typing import TypedDict",
        "class Row(TypedDict, total=False):\n    v: int",
        "[Row(v=1)]",
        "made[0]['v']",
        "made[0], dict",
    ),
    instances(
        "named_tuple",
        "from typing import NamedTuple",
        "class P(NamedTuple):\n    x: int\n    y: int = 2",
        "P(1)",
        "made.y",
        "made, P",
    ),
    instances(
        "collections_namedtuple",
        "from collections import namedtuple",
        "P = namedtuple('P', 'x y')",
        "P(1, 2)",
        "made.y",
        "made, P",
    ),
    instances(
        "enum",
        "from enum import Enum",
        "class Color(Enum):\n    RED = 1\n    BLUE = 2",
        "{'a': Color.RED}",
        "made['a'] is Color.RED",
        "made['a'], Color",
    ),
    instances(
        "dataclass_frozen_slots",
        "from dataclasses import dataclass, replace",
        "@dataclass(frozen=True, slots=True)\nclass P:\n    x: int = 1",
        "P(4)",
        "replace(made, x=made.x + 1)",
        "made, P",
    ),
    edited(
        "dataclass_default_edited",
        "from dataclasses import dataclass",
        [
            f"@dataclass\nclass P:\n    x: int = {k}\n    def __post_init__(self):\n        self.y = self.x * 2"
            for k in (1, 2)
        ],
        "P()",
        "made.y",
    ),
    instances(
        "own_exception",
        "import json",
        "class Bad(ValueError):\n    def __init__(self, code):\n        super().__init__(f'code {code}')\n        self.code = code",
        "Bad(3)",
        "(made.code, str(made))",
        "made, Bad",
    ),
    instances(
        "own_dict_subclass",
        "import json",
        "class Bag(dict):\n    def total(self):\n        return sum(self.values())",
        "Bag(a=1, b=2)",
        "made.total()",
        "made, Bag",
    ),
    instances(
        "abstract_base",
        "from abc import ABC, abstractmethod",
        "class Shape(ABC):\n    @abstractmethod\n    def area(self): ...\nclass Square(Shape):\n    def __init__(self, s):\n        self.s = s\n    def area(self):\n        return self.s ** 2",
        "[Square(2), Square(3)]",
        "sum(s.area() for s in made)",
        "made[0], Shape",
    ),
    instances(
        "estimator_of_the_notebook",
        "from sklearn.base import BaseEstimator, TransformerMixin, clone\nfrom sklearn.pipeline import make_pipeline\nfrom sklearn.linear_model import LinearRegression\nimport numpy as np",
        "class Square(BaseEstimator, TransformerMixin):\n    def __init__(self, power=2):\n        self.power = power\n    def fit(self, X, y=None):\n        self.n_ = len(X)\n        return self\n    def transform(self, X):\n        return np.asarray(X) ** self.power",
        "make_pipeline(Square(), LinearRegression()).fit([[1.0], [2.0], [3.0]], [1.0, 4.0, 9.0])",
        "made.predict([[4.0]]).round(6).tolist()",
        "made[0], Square",
    ),
    edited(
        "method_edited",
        "import json",
        [
            f"class P:\n    def __init__(self, x):\n        self.x = x\n    def area(self):\n        return self.x * {k}"
            for k in (1, 2, 1)
        ],
        "P(3)",
        "made.area()",
    ),
    instances(
        "class_with_cached_methods",
        "from functools import cached_property, lru_cache",
        "class T:\n    def __init__(self, n):\n        self.n = n\n    @cached_property\n    def double(self):\n        return self.n * 2\n    @lru_cache\n    def plus(self, k):\n        return self.n + k",
        "T(3)",
        "made.double + made.plus(1)",
        "made, T",
    ),
    instances(
        "instances_that_share",
        "import json",
        "class N:\n    def __init__(self, v):\n        self.v, self.peers = v, []",
        "(lambda a, b: (a.peers.append(b), b.peers.append(a), [a, b])[-1])(N(1), N(2))",
        "made[0].peers[0] is made[1]",
        "made[1], N",
    ),
    # Functions as values.
    Case(
        "function_reads_a_large_global",
        [
            [
                "import numpy as np",
                "table = np.arange(40_000)",
                "%%asset look\nlook = lambda i: int(table[i])",
                "%%asset used\nused = look(7)",
                "here = look(9)",
            ]
        ]
        * 2,
        ["used", "here"],
        never="not your changed variable",
        reused=["look", "used"],
    ),
    Case(
        "function_reads_an_edited_global",
        [
            [
                "import numpy as np",
                f"table = np.arange(40_000) * {k}",
                "%%asset look\ndef look(i):\n    return int(table[i])",
                "%%asset used\nused = look(7)",
                "here = look(9)",
            ]
            for k in (1, 2)
        ],
        ["used", "here"],
    ),
    Case(
        "function_sees_a_rebound_global",
        [
            [
                "table = [1, 2]",
                "%%asset look\nlook = lambda i: table[i]",
                f"table = [{k}, 4]",
                "here = look(0)",
                "%%asset used\nused = look(0)",
            ]
            for k in (3, 5, 5)
        ],
        ["used", "here"],
    ),
    Case(
        "closure_over_a_large_array",
        [
            [
                "import numpy as np",
                "def make(n):\n    data = np.arange(n)\n    return lambda i: int(data[i]) + 1",
                "%%asset look\nlook = make(50_000)",
                "%%asset used\nused = look(3)",
                "here = look(4)",
            ]
        ]
        * 2,
        ["used", "here"],
        reused=["look", "used"],
    ),
    Case(
        "partial_as_a_value",
        [
            [
                "from functools import partial",
                f"def power(x, k):\n    return x ** k + {c}",
                "%%asset square\nsquare = partial(power, k=2)",
                "%%asset used\nused = square(3)",
                "here = square(4)",
            ]
            for c in (0, 1)
        ],
        ["used", "here"],
    ),
    Case(
        "bound_method_as_a_value",
        [
            [
                "class M:\n    def __init__(self, k):\n        self.k = k\n    def run(self, x):\n        return self.k * x",
                "%%asset run\nm = M(3)\nrun = m.run",
                "%%asset used\nused = run(3)",
                "here = run(4), run.__self__ is m",
            ]
        ]
        * 2,
        ["used", "here"],
        reused=["run", "used"],
    ),
    Case(
        "dict_of_functions",
        [
            [
                f"def base(x):\n    return x + {k}",
                "%%asset steps\nsteps = {'a': base, 'b': lambda x: base(x) * 2}",
                "%%asset used\nused = [f(1) for f in steps.values()]",
                "here = steps['a'] is base",
            ]
            for k in (1, 2, 2)
        ],
        ["used", "here"],
        reused=["steps", "used"],
    ),
    Case(
        "function_calls_another_of_the_notebook",
        [
            [
                f"def inner(x):\n    return x + {k}",
                "%%asset outer\ndef outer(x):\n    return inner(x) * 2",
                "%%asset used\nused = outer(1)",
                "here = outer(2)",
            ]
            for k in (1, 2)
        ],
        ["used", "here"],
    ),
    Case(
        "cached_function_as_a_value",
        [
            [
                "from functools import lru_cache",
                "%%asset f\n@lru_cache\ndef f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)",
                "%%asset used\nused = f(20)",
                "here = f(10)",
            ]
        ]
        * 2,
        ["used", "here"],
        reused=["f", "used"],
    ),
    Case(
        "vectorized_function_as_a_value",
        [
            [
                "import numpy as np\nK = 2",
                "%%asset f\nf = np.vectorize(lambda x: x + K)",
                "%%asset used\nused = f([1, 2]).tolist()",
            ]
        ]
        * 2,
        ["used"],
        reused=["f", "used"],
    ),
    Case(
        "interpolation_as_a_value",
        [
            [
                "import numpy as np\nfrom scipy.interpolate import CubicSpline",
                "%%asset f\nf = CubicSpline(np.arange(5.0), np.arange(5.0) ** 2)",
                "%%asset used\nused = round(float(f(2.5)), 6)",
            ]
        ]
        * 2,
        ["used"],
        reused=["f", "used"],
    ),
    Case(
        "dataclass",
        [
            [
                "from dataclasses import dataclass",
                "@dataclass\nclass P:\n    x: int = 1",
                "%%asset p\np = P(4)",
                "same = isinstance(p, P)",
            ]
        ]
        * 2,
        ["p", "same"],
        reused=["p"],
    ),
]
