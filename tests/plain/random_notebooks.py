"""Random notebooks of plain and asset cells, and random edits of them.

What a cell may read is known by kind while a notebook is written, so that most notebooks run. Each is one that a plain Run All
in a used kernel brings to the same values as in a new one: what a cell changes in place, appends to or draws from is made by a
cell above it.
"""

import random
import re
from dataclasses import dataclass, replace

SETUP = "import random, json\nimport numpy as np\nimport pandas as pd"
SHOWN = {
    "frame": "({0}.to_dict('list'), {0}.index.tolist())",
    "array": "({0}.tolist(), str({0}.dtype))",
    "box": "({0}.v, {0}.items, isinstance({0}, Box))",
    "function": "{0}(3)",
    "file": "__import__('pathlib').Path({0!r}).read_text()",
    "class": "{0}.count",
}
"""What is compared of a value, by kind; other kinds are compared by repr."""


@dataclass(frozen=True)
class Cell:
    """A cell: its id, its magic's line (empty in a plain cell), and its statements."""

    id: str
    head: str
    lines: tuple

    @property
    def text(self):
        return "\n".join(([self.head] if self.head else []) + list(self.lines))


class Author:
    """Writes notebooks.

    Parameters
    ----------
    seed
        Tells one notebook from another.
    """

    def __init__(self, seed):
        self.pick = random.Random(seed)
        self.known = {}
        self.made = 0
        self.keys = 0

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

    def number(self):
        return str(self.pick.randrange(1, 9))

    def expression(self, depth=0):
        """Return an expression whose value is an int."""
        choices = [self.number()]
        for kind, forms in {
            "number": ("{0}", "{0}"),
            "list": ("len({0})", "sum({0})", "{0}[-1]"),
            "dict": ("{0}['a']", "len({0}['sub'])", "sum({0}['sub'])"),
            "frame": ("int({0}.v.sum())", "len({0})", "len({0}.columns)"),
            "array": ("int({0}.sum())", "int({0}[0])"),
            "box": ("{0}.v", "len({0}.items)"),
            "function": ("{0}(2)", f"{{0}}({self.number()})"),
            "class": ("{0}.count",),
            "iterator": ("next({0})",),
        }.items():  # fmt: skip
            name = self.named(kind)
            if name:
                choices += [form.format(name) for form in forms]
        frame, limit = self.named("frame"), self.named("number")
        if frame and limit:
            choices.append(f"len({frame}.query('v > @{limit}'))")
            if "look" in self.known:
                choices.append(f"look({frame!r}, 'v > @{limit}')")
        if limit and "compute" in self.known:
            choices.append(f"compute('{limit} + 1')")
        chosen = self.pick.choice(choices)
        if depth < 1 and self.pick.random() < 0.4:
            return f"{chosen} {self.pick.choice('+-*')} {self.expression(depth + 1)}"
        return chosen

    def drawn(self):
        """Return an expression that draws a random number from a seeded stream, or any other."""
        choices = []
        if "np_seeded" in self.known:
            choices.append("int(np.random.randint(1000))")
        if "seeded" in self.known:
            choices.append("random.randrange(1000)")
        for kind, form in (("rng", "int({0}.integers(1000))"), ("py_rng", "{0}.randrange(1000)")):
            name = self.named(kind)
            if name:
                choices.append(form.format(name))
        return self.pick.choice(choices) if choices else self.expression()

    # -- statements

    def value(self, kind):
        one, two = self.expression(), self.expression()
        return {
            "number": one if self.pick.random() < 0.7 else self.drawn(),
            "list": f"[{one}, {two}]",
            "dict": f"{{'a': {one}, 'sub': [{two}]}}",
            "frame": f"pd.DataFrame({{'v': [{one}, {two}, {self.number()}]}})",
            "array": f"np.arange(3) * {self.number()}",
            "box": f"Box({one})",
        }[kind]

    def kind(self):
        kinds = ["number", "number", "list", "dict", "frame", "array"]
        return self.pick.choice([*kinds, "box"] if "Box" in self.known else kinds)

    def bind(self, name, kind):
        self.known.pop(name, None)
        self.known[name] = kind

    def assign(self):
        kind = self.kind()
        text = self.value(kind)
        name = self.new(kind[0] + "_")
        self.bind(name, kind)
        return f"{name} = {text}"

    def change(self):
        """Return a statement that changes an object in place, or binds a name again by what it was."""
        name = self.named("list", "dict", "frame", "array", "box", "class", "number")
        if name is None:
            return self.assign()
        one = self.expression()
        forms = {
            "list": ("{0}.append({1})", "{0}[0] = {1}", "{0} += [{1}]", "{0} = sorted({0})", "{0} = [*{0}, {1}]"),
            "dict": ("{0}['a'] = {1}", "{0}['a'] += 1", "{0}['sub'].append({1})", "{0}.update(b={1})"),
            "frame": ("{0}['w'] = {0}['v'] * {1}", "{0} = {0}[{0}.v > 1]", "{0} = {0}.assign(z={1})", "{0}.rename(columns={{'w': 'u'}}, inplace=True)"),
            "array": ("{0}[0] = {1}", "{0} += 1", "{0} = {0} * 2"),
            "box": ("{0}.v = {1}", "{0}.items.append({1})", "{0}.grow()"),
            "class": ("{0}.count += 1",),
            "number": ("{0} += 1", "{0} = {0} * 2", "{0} = {1}"),
        }  # fmt: skip
        kind = self.known[name]
        self.bind(name, kind)
        return self.pick.choice(forms[kind]).format(name, one)

    def alias(self):
        name = self.named("list", "dict", "array")
        if name is None:
            return self.assign()
        if self.known[name] == "dict":
            other = self.new("l_")
            self.bind(other, "list")
            return f"{other} = {name}['sub']"
        kind = self.known[name]
        other = self.new(kind[0] + "_")
        if other == name:
            return self.assign()
        self.bind(other, kind)
        return f"{other} = {name}"

    def function(self):
        name = self.new("h_")
        helper = self.named("function") if self.pick.random() < 0.4 else None
        self.known.pop(name, None)
        inner = f"{helper}(x)" if helper and helper != name else "x"
        line = f"def {name}(x): return {inner} * {self.number()} + {self.expression()}"
        self.bind(name, "function")
        # A function that is called when values are compared must not draw from an iterator.
        return re.sub(r"next\(\w+\)", "4", line)

    def file(self):
        one = self.expression()
        old = self.named("file")
        if old and self.pick.random() < 0.4:
            return f"with open({old!r}, 'a') as f: f.write(str({one}) + ' ')"
        name = old if old and self.pick.random() < 0.3 else f"file{len(self.known)}.txt"
        self.bind(name, "file")
        return f"with open({name!r}, 'w') as f: f.write(str({one}) + ' ')"

    def read(self):
        file = self.named("file")
        if file is None:
            return self.file()
        name = self.new("n_")
        self.bind(name, "number")
        return f"{name} = sum(map(int, open({file!r}).read().split()))"

    def loop(self):
        name = self.named("list")
        if name is None:
            return self.assign()
        self.bind("i", "number")
        total = self.new("n_")
        self.bind(total, "number")
        return f"{total} = 0\nfor i in {name}: {total} += i"

    def seed(self):
        which = self.pick.choice(["np_seeded", "seeded", "rng", "py_rng", "iterator"])
        if which in {"np_seeded", "seeded"}:
            self.bind(which, "stream")
            return f"{'np.' if which == 'np_seeded' else ''}random.seed({self.number()})"
        name = self.new("r_")
        self.bind(name, which)
        return {
            "rng": f"{name} = np.random.default_rng({self.number()})",
            "py_rng": f"{name} = random.Random({self.number()})",
            "iterator": f"{name} = iter(range({self.number()}, 100))",
        }[which]

    def definition(self):
        which = self.pick.choice(["Box", "look", "compute"])
        if which == "Box":
            self.bind("Box", "class")
            return f"class Box:\n    count = {self.number()}\n    def __init__(self, v): self.v, self.items = v, []\n    def grow(self): self.items.append({self.number()})"
        self.bind(which, "helper")
        return {
            "look": "def look(name, text): return len(globals()[name].query(text))"
            if self.pick.random() < 0.2
            else "def look(name, text): return len(eval(name).query(text))",
            "compute": "def compute(text): return eval(text)",
        }[which]

    def draw(self):
        text = self.drawn()
        name = self.new("n_")
        self.bind(name, "number")
        return f"{name} = {text}"

    def statement(self):
        return self.pick.choices(
            (
                self.assign,
                self.change,
                self.alias,
                self.function,
                self.file,
                self.read,
                self.loop,
                self.seed,
                self.definition,
                self.draw,
            ),
            (5, 6, 1, 2, 2, 2, 1, 2, 1.5, 3),
        )[0]()

    # -- cells

    def plain(self, number):
        return Cell(f"c{number}", "", tuple(self.statement() for _ in range(self.pick.randrange(1, 3))))

    def asset(self, number):
        lines = [self.statement() for _ in range(self.pick.randrange(3))]
        form = self.pick.random()
        self.keys += 1
        key = f"a{self.keys}"
        if form < 0.15:
            names = [f"{key}x", f"{key}y"]
            for name in names:
                kind = self.kind()
                lines.append(f"{name} = {self.value(kind)}")
                self.bind(name, kind)
            return Cell(f"c{number}", f"%%multi_asset {' '.join(names)}", tuple(lines))
        kind = self.kind()
        text = self.value(kind)
        if form < 0.4:
            name = self.named(kind) or self.new(kind[0] + "_")
            if self.pick.random() < 0.5 and kind == "frame" and self.known.get(name) == "frame":
                text = f"{name}.assign(y={self.expression()})"
            self.bind(name, kind)
            return Cell(f"c{number}", f"%%asset {key} -> {name}", (*lines, f"{name} = {text}"))
        self.bind(key, kind)
        return Cell(f"c{number}", f"%%asset {key}", (*lines, f"{key} = {text}"))

    def notebook(self):
        """Return the cells of a notebook."""
        cells = [Cell("c0", "", (SETUP, self.seed()))]
        for number in range(1, self.pick.randrange(4, 9)):
            form = self.asset if self.pick.random() < 0.55 else self.plain
            cells.append(form(number))
        return tuple(cells)

    def watched(self):
        """Return the expressions that are compared."""
        return [
            SHOWN.get(kind, "{0}").format(name)
            for name, kind in self.known.items()
            if kind not in {"stream", "rng", "py_rng", "iterator", "helper"}
        ]

    def edit(self, cells):
        """Return the cells with one edit: another number, an added, removed or replaced statement, two cells swapped."""
        cells = list(cells)
        at = self.pick.randrange(len(cells))
        cell = cells[at]
        how = self.pick.random()
        if how < 0.6:
            lines = list(cell.lines)
            line = self.pick.randrange(len(lines))
            found = list(re.finditer(r"(?<![\w'.\[])\d(?![\w.'])", lines[line]))
            if found:
                place = self.pick.choice(found)
                lines[line] = lines[line][: place.start()] + self.number() + lines[line][place.end() :]
            cells[at] = replace(cell, lines=tuple(lines))
        elif how < 0.75:
            cells[at] = replace(
                cell, lines=(self.change_known(cells[:at]) or "pass", *cell.lines) if at else cell.lines
            )
        elif how < 0.85 and len(cell.lines) > 1 and at:
            line = self.pick.randrange(len(cell.lines) - 1)
            cells[at] = replace(cell, lines=cell.lines[:line] + cell.lines[line + 1 :])
        else:
            cells[at] = replace(cell, lines=(f"# {self.number()}", *cell.lines))
        return tuple(cells)

    def change_known(self, above):
        """Return a statement that changes what cells above bind."""
        text = "\n".join(cell.text for cell in above)
        bound = {
            name: kind for name, kind in self.known.items() if re.search(rf"^{re.escape(name)} = ", text, re.MULTILINE)
        }
        everything, self.known = self.known, dict(bound)
        line = self.change() if self.named("list", "dict", "frame", "array", "number") else ""
        self.known = everything
        return line
