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
    return Case(name, [[imports, text, f"%%asset made\nmade = {make}", f"%%asset got\ngot = {read}"] for text in texts], ["got"])


PYDANTIC = "from pydantic import BaseModel, ConfigDict, computed_field, field_validator"
PERSON = "class Person(BaseModel):\n    name: str\n    age: int = 3"
VALIDATED = (
    "class P(BaseModel):\n    v: int\n    @field_validator('v')\n    @classmethod\n    def check(cls, v):\n        return v + {}"
)
ALCHEMY = (
    "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, Session\nfrom sqlalchemy import create_engine, select"
)
TABLE = "class Base(DeclarativeBase):\n    pass\nclass User(Base):\n    __tablename__ = 'users'\n    id: Mapped[int] = mapped_column(primary_key=True)\n    name: Mapped[str]\n    def hello(self):\n        return 'hello ' + self.name"

SHOWN = "    def shown(self): return self.id\n"
COUNTING = {
    "attribute": "class Node:\n    made = 0\n    def __init__(self):\n        Node.made += 1\n        self.id = Node.made\n",
    "iterator": "class Node:\n    ids = itertools.count(1)\n    def __init__(self): self.id = next(self.ids)\n",
    "dataclass": "@dataclasses.dataclass\nclass Node:\n    made: ClassVar[int] = 0\n    id: int = 0\n    def __post_init__(self):\n        type(self).made += 1\n        self.id = self.made\n",
    "registry": "class Node:\n    by_id = {}\n    def __init__(self):\n        self.id = len(Node.by_id)\n        Node.by_id[self.id] = self\n",
    "class_method": "class Node:\n    made = 0\n    @classmethod\n    def fresh(cls):\n        cls.made += 1\n        return cls.made\n    def __init__(self): self.id = Node.fresh()\n",
    "last_one": "class Node:\n    last = None\n    def __init__(self):\n        self.id = 1 if Node.last is None else Node.last.id + 1\n        Node.last = self\n",
    "global": "made = 0\nclass Node:\n    def __init__(self):\n        global made\n        made += 1\n        self.id = made\n",
    "metaclass": "class Meta(type):\n    made = 0\n    def __call__(cls, *given):\n        Meta.made += 1\n        return super().__call__(*given)\nclass Node(metaclass=Meta):\n    def __init__(self): self.id = Meta.made\n",
}
"""Classes that count their instances."""


def counted(kind):
    """Return the cells of a notebook that makes instances in plain and asset cells."""
    return [
        ("c0", f"import dataclasses, itertools\nfrom typing import ClassVar\n{COUNTING[kind]}{SHOWN}"),
        ("c1", "%%asset nodes\nnodes = [Node(), Node()]"),
        ("c2", "extra = Node()"),
        ("c3", "%%asset more\nmore = [Node(), *nodes]"),
        ("c4", "n = isinstance(nodes[0], Node), more[1] is nodes[0], nodes[0].shown(), more[0].shown(), extra.shown()"),
    ]


CASES = [
    *[
        Case(
            f"instances_counted_by_{kind}",
            [counted(kind) * 2] * 2,
            ["n"],
            reused=["nodes", "more"] if kind != "iterator" else [],
            never="copy",
        )
        for kind in COUNTING
    ],
    Case(
        "subclass_of_date_defined_again",
        [
            [
                ("c0", "import datetime as dt\nclass Day(dt.date): pass\nstart = Day(2020, 1, 1)"),
                ("c1", "%%asset a\na = [start, start + dt.timedelta(1)]"),
                ("c2", "n = type(a[0]) is Day, isinstance(a[1], Day), a"),
            ]
            * 2
        ]
        * 2,
        ["n"],
        reused=["a"],
    ),
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
        [f"class P(BaseModel):\n    model_config = ConfigDict(str_strip_whitespace={k})\n    s: str" for k in ("True", "False")],
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
        [f"class Box(BaseModel, Generic[T]):\n    v: T\n    def twice(self):\n        return self.v * {k}" for k in (2, 3)],
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
        [f"class P(msgspec.Struct):\n    v: int = 1\n    def times(self):\n        return self.v * {k}" for k in (2, 3)],
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
        [f"@dataclass\nclass P:\n    x: int = {k}\n    def __post_init__(self):\n        self.y = self.x * 2" for k in (1, 2)],
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
        "exception_with_keyword_only_arguments",
        "import json",
        "class Bad(Exception):\n    def __init__(self, code, *, where):\n        super().__init__(f'{code} at {where}')\n        self.code, self.where = code, where\nclass Worse(Bad):\n    __slots__ = ('level',)\n    def __init__(self, code, level):\n        super().__init__(code, where='there')\n        self.level = level",
        "[Bad(3, where='here'), Worse(4, 9)]",
        "[(each.code, each.where, str(each), each.args) for each in made] + [made[1].level]",
        "made[1], Bad",
    ),
    instances(
        "exception_group",
        "import json",
        "class Bad(ValueError):\n    def __init__(self, a, b):\n        super().__init__(a + b)\nclass Several(ExceptionGroup):\n    def __new__(cls, excs, tag):\n        self = super().__new__(cls, 'several', excs)\n        self.tag = tag\n        return self\n    def derive(self, excs):\n        return Several(excs, self.tag)",
        "Several([Bad(1, 2), KeyError('k'), ExceptionGroup('in', [OSError(2, 'no', 'f')])], 't')",
        "(made.tag, made.message, repr(made.split(KeyError)), made.exceptions[2].exceptions[0].filename)",
        "made.exceptions[0], Bad",
    ),
    Case(
        "exceptions_that_were_caught",
        [
            [
                "class Lost(OSError):\n    def __init__(self, path, extra):\n        super().__init__(2, 'lost', path)\n        self.extra = extra",
                "%%asset errors\nerrors = []\nfor give in (lambda: open('not-there'), lambda: 1 / 0, lambda: b'\\xff'.decode(), lambda: [].nothing):\n    try:\n        try:\n            give()\n        except Exception as error:\n            raise Lost('p', give.__name__) from error\n    except Lost as lost:\n        errors.append(lost)",
                "n = [(each.extra, each.filename, str(each), repr(each.__cause__), each.__cause__ is each.__context__) for each in errors]",
                "%%asset used\nused = [type(each.__cause__).__name__ for each in errors if each.errno == 2]",
            ]
        ]
        * 3,
        ["n", "used"],
        reused=["errors", "used"],
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
    *[
        Case(
            f"code_in_a_value_sees_{name}",
            [
                [
                    setup,
                    f"%%asset made\nmade = {make}",
                    between.format(k=k),
                    f"here = {use}",
                    f"%%asset used\nused = {use}",
                ]
                for k in (3, 5, 5)
            ],
            ["used", "here"],
            reused=["used"],
        )
        for name, setup, make, between, use in (
            (
                "a_rebound_factor",
                "factor = 1\nclass Scale:\n    def apply(self, x):\n        return x * factor",
                "[Scale()]",
                "factor = {k}",
                "made[0].apply(2)",
            ),
            (
                "a_helper_defined_again",
                "def plus(x):\n    return x + 1",
                "{'f': lambda x: plus(x)}",
                "def plus(x):\n    return x + {k}",
                "made['f'](2)",
            ),
            (
                "a_changed_table",
                "table = {'a': [1]}\ndef look():\n    return table['a'][-1]",
                "look",
                "table['a'].append({k})",
                "made()",
            ),
            (
                "a_default_looked_up_later",
                "import functools\nbase = 1\ndef add(x, y):\n    return x + y + base",
                "functools.partial(add, 1)",
                "base = {k}",
                "made(2)",
            ),
        )
    ],
    Case(
        "code_in_a_value_reads_an_asset",
        [
            [
                f"%%asset table\ntable = [1, {k}]",
                "%%asset look\nlook = lambda i: table[i]",
                "%%asset used\nused = look(1)",
                "table = [7, 8]",
                "%%asset again\nagain = look(1)",
            ]
            for k in (2, 3, 3)
        ],
        ["used", "again"],
        reused=["table", "look", "used", "again"],
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
        "methods_of_objects_of_the_notebook",
        [
            [
                "class Counter:\n    def __init__(self):\n        self.n = 0\n    def up(self, by=1):\n        self.n += by\n        return self.n\ncounter = Counter()\nitems = []\nfrom functools import partial",
                "%%asset up\nup = counter.up\npush = items.append\nfive = partial(counter.up, 5)\nheld = {'up': [counter.up]}\nkinds = frozenset([counter])",
                "up()\npush(1)\nfive()\nheld['up'][0]()",
                "%%asset used\nused = up(10)",
                "n = counter.n, items, up.__self__ is counter, next(iter(kinds)) is counter, used",
            ]
        ]
        * 2,
        ["n"],
        reused=["up", "used"],
    ),
    Case(
        "methods_of_an_asset",
        [
            [
                "class Counter:\n    def __init__(self):\n        self.n = 0\n    def up(self):\n        self.n += 1\n        return self.n",
                "%%asset counter\ncounter = Counter()",
                "%%multi_asset up more\nup = counter.up\nmore = [counter.up, up]",
                "up()\nmore[0]()",
                "n = counter.n, up.__self__ is counter, more[0].__self__ is counter",
            ]
        ]
        * 2,
        ["n"],
        reused=["counter", "up", "more"],
    ),
    Case(
        "closures_that_share",
        [
            [
                "def make():\n    data = []\n    def add(x):\n        data.append(x)\n        return len(data)\n    def last():\n        return data[-1]\n    return add, last, data",
                "%%asset add\nadd, last, data = make()",
                "add(4)",
                "n = data, last(), add(5)",
            ]
        ]
        * 2,
        ["n", "data"],
    ),
    Case(
        "closures_over_one_number",
        [
            [
                "def make():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n    return up, lambda: n",
                "%%multi_asset up now\nup, now = make()\nmore = {'up': up}",
                "up()\nmore['up']()",
                "%%asset used\nused = up()",
                "n = now(), used, more['up'] is up",
            ]
        ]
        * 2,
        ["n"],
        reused=["up", "now"],
    ),
    Case(
        "closure_over_an_object_of_the_notebook",
        [
            [
                "log = []\ndef make(log):\n    return lambda x: log.append(x)",
                "%%asset add\nadd = make(log)",
                "add(4)",
                "n = list(log)",
            ]
        ]
        * 2,
        ["n"],
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
