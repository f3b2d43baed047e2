"""Random notebooks of plain and asset cells, and random edits of them.

What a cell may read is known by kind while a notebook is written, so that most notebooks run. Each is one that a plain Run All in a
used kernel brings to the same values as in a new one: what a cell changes in place, appends to or draws from is made by a cell above it.
"""

import random
import re
from dataclasses import dataclass, replace

SETUP = (
    "import random, os, itertools, pathlib, decimal",
    "import numpy as np",
    "import pandas as pd",
    "import polars as pl, duckdb",
)
SHOWN = {
    "frame": "({0}.to_dict('list'), {0}.index.tolist(), [str(each) for each in {0}.dtypes])",
    "polars": "{0}.to_dict(as_series=False)",
    "series": "({0}.tolist(), {0}.name)",
    "array": "({0}.tolist(), str({0}.dtype))",
    "set": "sorted({0})",
    "box": "({0}.v, {0}.items, isinstance({0}, Box))",
    "point": "({0}, isinstance({0}, Point))",
    "held": "({0}.v, {0}.kept)",
    "function": "{0}(3)",
    "module": "{0}.__name__",
    "registry": "sorted((name, each(2)) for name, each in {0}.items())",
    "file": "pathlib.Path({0!r}).read_text()",
    "gone": "os.path.exists({0!r})",
    "class": "{0}.count",
    "env": "os.environ.get({0!r})",
    "option": "{0}",
    "text": "{0}",
    "generator": "type({0}).__name__",
}
"""What is compared of a value, by kind; other kinds are compared by repr."""
HIDDEN = frozenset({"stream", "rng", "py_rng", "iterator", "tick", "helper", "maker"})
"""Kinds whose objects are not compared: looking at them would change them, or they have no value."""
OPTIONS = {
    "pd.get_option('display.max_rows')": "pd.set_option('display.max_rows', {0})",
    "np.get_printoptions()['precision']": "np.set_printoptions(precision={0})",
    "decimal.getcontext().prec": "decimal.getcontext().prec = {0}",
}
READ = {
    "number": ("{0}", "{0}"),
    "list": ("len({0})", "sum({0})", "{0}[-1]", "max({0}, key=lambda x: -x)"),
    "set": ("len({0})", "max({0})"),
    "pair": ("{0}[1]", "len({0}[0])"),
    "dict": ("{0}['a']", "len({0}['sub'])", "sum({0}['sub'])", "{0}.get('b', 1)"),
    "frame": ("int({0}.v.sum())", "len({0})", "len({0}.columns)", "int({0}['v'].max() > 2)", "int({0}.eval('v + 1').sum())"),
    "polars": ("int({0}['v'].sum())", "{0}.height", "int({0}.sql('select sum(v) as s from self')['s'][0])"),
    "series": ("int({0}.sum())", "len({0})"),
    "array": ("int({0}.sum())", "int({0}[0])"),
    "box": ("{0}.v", "len({0}.items)"),
    "point": ("{0}.x", "len({0}.y)"),
    "held": ("{0}.v", "len({0}.kept)"),
    "function": ("{0}(2)", "{0}({1})", "sum(map({0}, [1, 2]))"),
    "class": ("{0}.count",),
    "iterator": ("next({0})",),
    "generator": ("next({0}, 0)",),
    "tick": ("{0}()",),
    "text": ("len({0})",),
    "registry": ("len({0})", "sum(each(1) for each in {0}.values())"),
    "module": ("len({0}.__name__)",),
    "env": ("int(os.environ[{0!r}])", "len(os.environ.get({0!r}, ''))"),
    "option": ("{0}",),
    "file": ("len(open({0!r}).read())",),
}  # fmt: skip
"""Expressions whose value is an int, by the kind of what they read."""
CHANGE = {
    "list": ("{0}.append({1})", "{0}[0] = {1}", "{0} += [{1}]", "{0} = sorted({0})", "{0} = [*{0}, {1}]", "{0}.extend(x for x in range({2}))", "random.Random({2}).shuffle({0})"),
    "set": ("{0}.add({1})", "{0} |= {{{1}}}", "{0} = {0} - {{{2}}}  | {{9}}"),
    "dict": ("{0}['a'] = {1}", "{0}['a'] += 1", "{0}['sub'].append({1})", "{0}.update(b={1})", "{0}.setdefault('c', []).append({1})"),
    "pair": ("{0}[0].append({1})", "{0} = ({0}[0], {1})"),
    "frame": ("{0}['w'] = {0}['v'] * {1}", "{0} = {0}[{0}.v > 1]", "{0} = {0}.assign(z={1})", "{0}.rename(columns={{'w': 'u'}}, inplace=True)", "{0}.loc[0, 'v'] = {1}", "{0}.insert(0, 'q{2}', {1}, allow_duplicates=True)"),
    "polars": ("{0} = {0}.with_columns(w={1})", "{0} = {0}.filter({0}['v'] > 1)"),
    "series": ("{0}[0] = {1}", "{0} = {0} * 2", "{0}.name = 's{2}'"),
    "array": ("{0}[0] = {1}", "{0} += 1", "{0} = {0} * 2", "np.add({0}, {2}, out={0})"),
    "box": ("{0}.v = {1}", "{0}.items.append({1})", "{0}.grow()", "{0}.extra = {1}"),
    "point": ("{0}.x = {1}", "{0}.y.append({1})"),
    "held": ("{0}.v = {1}", "{0}.kept.append({1})"),
    "class": ("{0}.count += 1", "{0}.count = {1}", "{0}.more = [{1}]"),
    "number": ("{0} += 1", "{0} = {0} * 2", "{0} = {1}"),
    "text": ("{0} += 'x'", "{0} = {0}.upper()"),
    "env": ("os.environ[{0!r}] = str({1})", "os.environ[{0!r}] = str(int(os.environ[{0!r}]) + 1)"),
}  # fmt: skip
"""Statements that change an object in place, or bind its name again by what it was."""


@dataclass(frozen=True)
class Cell:
    """A cell: its id, its magic's line (empty in a plain cell), and its statements."""

    id: str
    head: str
    lines: tuple

    @property
    def text(self):
        return "\n".join(([self.head] if self.head else []) + list(self.lines))

    @property
    def plain(self):
        return "\n".join(self.lines)


class Author:
    """Writes notebooks.

    Parameters
    ----------
    seed
        Tells one notebook from another.
    """

    def __init__(self, seed):
        self.pick = random.Random(seed)
        self.drops = random.Random(f"{seed}: drops")
        self.known = {}
        self.made = 0
        self.keys = 0
        self.cells = 0

    # -- names and expressions

    def named(self, *kinds):
        found = [name for name, kind in self.known.items() if kind in kinds]
        # What was written last is read more often.
        return self.pick.choice(found[-4:]) if found and self.pick.random() < 0.7 else self.pick.choice(found or [None])

    def new(self, prefix):
        """Return a name: usually another one, sometimes one that is bound already."""
        old = [name for name in self.known if re.fullmatch(rf"{prefix}\d+", name)]
        if old and self.pick.random() < 0.25:
            return self.pick.choice(old)
        self.made += 1
        return f"{prefix}{self.made}"

    def bind(self, name, kind):
        self.known.pop(name, None)
        self.known[name] = kind
        return name

    def number(self):
        return str(self.pick.randrange(1, 9))

    def expression(self, depth=0, *, calm=False):
        """Return an expression whose value is an int.

        Parameters
        ----------
        calm
            Whether it must have the same value whenever it is evaluated: what an iterator gives is left out.
        """
        choices = [self.number()]
        for kind, forms in READ.items():
            name = None if calm and kind in {"iterator", "generator", "tick"} else self.named(kind)
            if name:
                choices.append(self.pick.choice(forms).format(name, self.number()))
        frame, limit = self.named("frame"), self.named("number")
        if frame and limit:
            choices.append(f"len({frame}.query('v > @{limit}'))")
            choices.append(f"int(pd.eval('{limit} + 1'))")
            if "look" in self.known:
                choices.append(f"look({frame!r}, 'v > @{limit}')")
        if frame and self.pick.random() < 0.15:
            choices += [f"int(duckdb.sql('select count(*) from {frame}').limit(1).fetchall()[0][0])"] * 3
        if limit and "compute" in self.known:
            choices.append(f"compute('{limit} + 1')")
        chosen = self.pick.choice(choices)
        if depth < 1 and self.pick.random() < 0.4:
            return f"{chosen} {self.pick.choice('+-*')} {self.expression(depth + 1, calm=calm)}"
        return chosen

    def drawn(self):
        """Return an expression that draws a random number from a seeded stream, or any other."""
        choices = []
        if "np_seeded" in self.known:
            choices += ["int(np.random.randint(1000))", "int(np.random.permutation(50)[0])"]
        if "seeded" in self.known:
            choices += ["random.randrange(1000)", "random.sample(range(99), 2)[0]"]
        for kind, form in (("rng", "int({0}.integers(1000))"), ("py_rng", "{0}.randrange(1000)")):
            name = self.named(kind)
            if name:
                choices.append(form.format(name))
        return self.pick.choice(choices) if choices else self.expression()

    # -- statements

    def value(self, kind):
        one, two = self.expression(), self.expression()
        members = self.named("list") if self.pick.random() < 0.3 else None
        return {
            "number": f"({one if self.pick.random() < 0.7 else self.drawn()}) % 997",
            "list": f"[{one}, {two}]" if self.pick.random() < 0.8 else f"[x + {one} for x in range({self.number()})]",
            "set": f"{{{one}, {two}}}",
            "pair": f"({members or f'[{one}]'}, {two})",
            "dict": f"{{'a': {one}, 'sub': {members or f'[{two}]'}}}",
            "frame": f"pd.DataFrame({{'v': [{one}, {two}, {self.number()}]}})",
            "polars": f"pl.DataFrame({{'v': [{one}, {two}]}})",
            "series": f"pd.Series([{one}, {two}], name='s')",
            "array": f"np.arange(3) * {one}",
            "text": f"'t' * ({one} % 5)",
            "box": f"Box({one})",
            "point": f"Point({one})",
            "held": f"Held({one})",
            "generator": f"(x * {self.number()} for x in range({self.number()}))",
        }[kind]

    def kind(self):
        kinds = "number number number list list dict dict frame frame array set pair series text polars".split()
        kinds += [kind for kind in ("box", "point", "held") if kind.title() in self.known] * 2
        return self.pick.choice(kinds)

    def assign(self):
        kind = self.kind()
        text = self.value(kind)
        return f"{self.bind(self.new(kind[0] + '_'), kind)} = {text}"

    def change(self, one=None):
        name = self.named(*CHANGE)
        if name is None:
            return self.assign()
        kind = self.known[name]
        self.bind(name, kind)
        return self.pick.choice(CHANGE[kind]).format(name, one or self.expression(), self.number())

    def alias(self):
        name = self.named("list", "dict", "array", "frame", "set", "box")
        if name is None:
            return self.assign()
        kind, text = (
            ("list", f"{name}['sub']") if self.known[name] == "dict" and self.pick.random() < 0.6 else (self.known[name], name)
        )
        other = self.new(kind[0] + "_")
        return self.assign() if other == name else f"{self.bind(other, kind)} = {text}"

    def function(self):
        name = self.new("h_")
        helper = self.named("function") if self.pick.random() < 0.4 else None
        self.known.pop(name, None)
        inner = f"{helper}(x)" if helper and helper != name else "x"
        body = f"{inner} * {self.number()} + {self.expression(calm=True)}"
        form = self.pick.random()
        if form < 0.15 and (registry := self.named("registry")):
            line = f"def add_to(f):\n    {registry}[f.__name__] = f\n    return f\n@add_to\ndef {name}(x): return {body}"
        elif form < 0.3:
            line = f"{name} = lambda x: {body}"
        elif form < 0.4:
            line = f"def make_{name}(k):\n    def inner(x): return {body} + k\n    return inner\n{name} = make_{name}({self.number()})"
        elif form < 0.5:
            line = f"def {name}(x, seen=[]):\n    seen.append(x)\n    return {body} + 0 * len(seen)"
        else:
            line = f"def {name}(x): return {body}"
        self.bind(name, "function")
        return line

    def changer(self):
        """Return a function that changes the notebook, and a call of it."""
        name = self.named("list", "dict", "number", "class", "box")
        if name is None:
            return self.assign()
        kind, one = self.known[name], self.expression(calm=True)
        body = {
            "list": f"{name}.append({one})",
            "dict": f"{name}['a'] = {one}",
            "box": f"{name}.v = {one}",
            "class": f"{name}.count += {self.number()}",
            "number": f"global {name}; {name} = {name} + {self.number()}",
        }[kind]
        self.made += 1
        self.bind(name, kind)
        return f"def do_{self.made}(): {body}\ndo_{self.made}()"

    def file(self):
        one = self.expression()
        old = self.named("file")
        if old and self.pick.random() < 0.4:
            return f"with open({old!r}, 'a') as f: f.write(str({one}) + ' ')"
        if old and self.pick.random() < 0.12:
            self.bind(old, "gone")
            return f"os.remove({old!r})"
        name = old if old and self.pick.random() < 0.3 else f"file{len(self.known)}.txt"
        self.bind(name, "file")
        frame, array = self.named("frame"), self.named("array")
        forms = [f"with open({name!r}, 'w') as f: f.write(str({one}) + ' ')"] * 3
        forms.append(f"pathlib.Path({name!r}).write_text(str({one}) + ' ')")
        if frame:
            forms.append(f"{frame}[['v']].head(2).to_csv({name!r}, sep=' ', index=False, header=False)")
        if array:
            forms.append(f"np.savetxt({name!r}, {array}, fmt='%d')")
        return self.pick.choice(forms)

    def read(self):
        file = self.named("file")
        if file is None:
            return self.file()
        if self.pick.random() < 0.3:
            return f"{self.bind(self.new('l_'), 'list')} = [*map(int, open({file!r}).read().split()), 1]"
        return f"{self.bind(self.new('n_'), 'number')} = sum(map(int, open({file!r}).read().split()))"

    def control(self):
        """Return a statement with statements in it."""
        name, one = self.named("list"), self.expression()
        total = self.bind(self.new("n_"), "number")
        forms = [
            f"if {one} > {self.number()}:\n    {total} = {self.number()}\nelse:\n    {total} = {self.number()}",
            f"try:\n    {total} = 7 // ({one} - {self.number()})\nexcept ZeroDivisionError:\n    {total} = {self.number()}",
        ]
        if name:
            self.bind("i", "number")
            forms += [f"{total} = 0\nfor i in {name}: {total} += i"] * 2
        else:
            self.known.pop("i", None)
        chosen = self.pick.choice(forms)
        if "for i" not in chosen:
            self.known.pop("i", None)
        return chosen

    def seed(self):
        which = self.pick.choice(["np_seeded", "seeded", "rng", "py_rng", "iterator", "generator", "tick"])
        if which in {"np_seeded", "seeded"}:
            self.bind(which, "stream")
            return f"{'np.' if which == 'np_seeded' else ''}random.seed({self.number()})"
        name = self.bind(self.new(f"{which[0]}{which[-1]}_"), which)
        return {
            "rng": f"{name} = np.random.default_rng({self.number()})",
            "py_rng": f"{name} = random.Random({self.number()})",
            "iterator": self.pick.choice(
                [f"{name} = iter(range({self.number()}, 100))", f"{name} = itertools.count({self.number()})"]
            ),
            "generator": f"{name} = (x * {self.number()} for x in range({self.number()}))",
            "tick": f"def make_{name}():\n    n = {self.number()}\n    def step():\n        nonlocal n\n        n += 1\n        return n\n    return step\n{name} = make_{name}()",
        }[which]

    def definition(self):
        which = self.pick.choice(["Box", "Point", "Held", "look", "compute", "registry", "import", "env", "option"])
        one = self.number()
        if which == "import":
            alias, module = self.pick.choice([("mt", "math"), ("st", "statistics"), ("op", "operator")])
            return f"import {module} as {self.bind(alias, 'module')}"
        if which == "registry":
            return f"{self.bind(self.new('reg_'), 'registry')} = {{}}"
        if which == "env":
            one = self.expression()
            return f"os.environ[{self.bind('FUZZ_' + self.pick.choice('AB'), 'env')!r}] = str({one})"
        if which == "option":
            read, write = self.pick.choice(list(OPTIONS.items()))
            self.bind(read, "option")
            return write.format(one)
        self.bind(which, {"Box": "class", "Point": "maker", "Held": "maker"}.get(which, "helper"))
        return {
            "Box": f"class Box:\n    count = {one}\n    def __init__(self, v): self.v, self.items = v, []\n    def grow(self): self.items.append({one}); Box.count += 1",
            "Point": "from dataclasses import dataclass, field\n@dataclass\nclass Point:\n    x: int\n    y: list = field(default_factory=list)",
            "Held": "import threading\nclass Held:\n    def __init__(self, v): self.v, self.kept, self.lock = v, [v], threading.Lock()",
            "look": "def look(name, text): return len(globals()[name].query(text))"
            if self.pick.random() < 0.2
            else "def look(name, text): return len(eval(name).query(text))",
            "compute": "def compute(text): return eval(text)",
        }[which]

    def draw(self):
        text = self.drawn()
        return f"{self.bind(self.new('n_'), 'number')} = {text}"

    def delete(self):
        name = self.named("number", "list")
        if name is None or len(self.known) < 6:
            return self.assign()
        del self.known[name]
        return f"{name} = 0\ndel {name}"

    def statement(self):
        forms = {
            self.assign: 6, self.change: 7, self.alias: 1.3, self.function: 2, self.changer: 1, self.file: 2, self.read: 1.5,
            self.control: 1, self.seed: 2, self.definition: 2.5, self.draw: 2.5, self.delete: 0.3,
        }  # fmt: skip
        return self.pick.choices(list(forms), list(forms.values()))[0]()

    # -- cells

    def cell(self, head, lines):
        self.cells += 1
        # A function is no variable that could be dropped.
        others = {line.partition(" = ")[0] for line in lines if re.match(r"\w+ = (?!lambda)", line)} - set(head.split())
        if head and others and self.drops.random() < 0.2:
            head += f" --drop {self.drops.choice(sorted(others))}"
        return Cell(f"c{self.cells}", head, tuple(lines))

    def plain(self):
        return self.cell("", [self.statement() for _ in range(self.pick.randrange(1, 4))])

    def asset(self):
        lines = [self.statement() for _ in range(self.pick.randrange(3))]
        form = self.pick.random()
        self.keys += 1
        key = f"a{self.keys}"
        if form < 0.12:
            names = [f"{key}x", f"{key}y"]
            for name in names:
                kind = self.kind()
                lines.append(f"{name} = {self.value(kind)}")
                self.bind(name, kind)
            return self.cell(f"%%multi_asset {' '.join(names)}", lines)
        if form < 0.2:
            return self.cell(f"%%asset {key}", [*lines, self.expression()])
        if form < 0.25 and (name := self.named("list")):
            return self.cell(f"%%asset {key}", [*lines, f"for each in {name}:\n    pass"])
        kind = self.kind() if form < 0.93 else "generator"
        text = self.value(kind)
        if form < 0.45:
            name = self.named(kind) or self.new(kind[0] + "_")
            if kind == "frame" and self.pick.random() < 0.5 and self.known.get(name) == "frame":
                text = f"{name}.assign(y={self.expression()})"
            return self.cell(f"%%asset {key} -> {self.bind(name, kind)}", [*lines, f"{name} = {text}"])
        after = [self.change()] if self.pick.random() < 0.2 else []
        return self.cell(f"%%asset {self.bind(key, kind)}", [*lines, f"{key} = {text}", *after])

    def notebook(self):
        """Return the cells of a notebook."""
        cells = [self.cell("", [*SETUP, self.seed()])]
        cells += [self.asset() if self.pick.random() < 0.55 else self.plain() for _ in range(self.pick.randrange(3, 9))]
        return tuple(cells)

    def watched(self):
        """Return the expressions that are compared."""
        shown = [SHOWN.get(kind, "{0}").format(name) for name, kind in self.known.items() if kind not in HIDDEN]
        lists = [name for name, kind in self.known.items() if kind == "list"]
        parts = [f"{name}['sub']" for name, kind in self.known.items() if kind == "dict"]
        parts += [f"{name}[0]" for name, kind in self.known.items() if kind == "pair"]
        shown += [f"{one} is {two}" for at, one in enumerate([*lists, *parts]) for two in [*lists, *parts][at + 1 :]]
        return shown

    # -- edits

    def edit(self, cells):
        """Return the cells with one edit."""
        cells = list(cells)
        at = self.pick.randrange(len(cells))
        cell = cells[at]
        how = self.pick.random()
        if how < 0.5:
            cells[at] = self.other_number(cell)
        elif how < 0.62 and at:
            cells[at] = replace(cell, lines=(self.change_known(cells[:at]), *cell.lines))
        elif how < 0.7 and at:
            # Another statement in the place of one that binds the same name.
            cells[at] = self.other_value(cells[:at], cell)
        elif how < 0.76 and at:
            cells.insert(at, self.cell("", [self.change_known(cells[:at])]))
        elif how < 0.84 and len(cell.lines) > 1 and at:
            line = self.pick.randrange(len(cell.lines) - 1)
            if cell.lines[line].partition(" = ")[0] in cell.head.split():
                # An asset cell must have its value.
                return tuple(cells)
            cells[at] = replace(cell, lines=cell.lines[:line] + cell.lines[line + 1 :])
        elif how < 0.88 and cell.head.startswith("%%asset"):
            cells[at] = replace(cell, head="")
        elif how < 0.93 and at + 1 < len(cells) and at:
            cells[at], cells[at + 1] = cells[at + 1], cells[at]
        else:
            cells[at] = replace(cell, lines=(f"# {self.number()}", *cell.lines))
        return tuple(cells)

    def other_number(self, cell):
        lines = list(cell.lines)
        line = self.pick.randrange(len(lines))
        found = list(re.finditer(r"(?<![\w'.\[])\d(?![\w.'])", lines[line]))
        if found:
            place = self.pick.choice(found)
            lines[line] = lines[line][: place.start()] + self.number() + lines[line][place.end() :]
        return replace(cell, lines=tuple(lines))

    def other_value(self, above, cell):
        """Return a cell in which a variable is given another value of its kind."""
        places = [
            at
            for at, line in enumerate(cell.lines)
            if (found := re.match(r"(\w+) = ", line)) and self.known.get(found[1]) in CHANGE
        ]
        if not places:
            return self.other_number(cell)
        at = self.pick.choice(places)
        name = cell.lines[at].split(" = ")[0]
        with_known = self.only(above)
        kind = with_known.pop(name, None) or self.known.get(name)
        everything, self.known = self.known, with_known
        line = f"{name} = {self.value(kind) if kind in self.values else self.number()}"
        self.known = everything
        return replace(cell, lines=(*cell.lines[:at], line, *cell.lines[at + 1 :]))

    values = frozenset("number list set pair dict frame polars series array text".split())

    def only(self, above):
        """Return the names that cells bind, by kind."""
        text = "\n".join(cell.plain for cell in above)
        return {
            name: kind
            for name, kind in self.known.items()
            if kind in CHANGE and re.search(rf"^{re.escape(name)} = ", text, re.MULTILINE)
        }

    def change_known(self, above):
        """Return a statement that changes what cells above bind."""
        everything, self.known = self.known, self.only(above)
        line = self.change(self.number()) if self.known else "pass"
        self.known = everything
        return line
