"""Random notebooks for the editing fuzzer: what their cells say, and how somebody edits them.

A notebook is a list of slots, each with the text of one cell, or of one definition in a local module. Code refers to later slots only, so
that nothing recurs for ever. In texts a slot is written ``<h1>``, so that it can be renamed; ``calls`` are the slots whose current meaning
counts when the code runs, ``holds`` those whose object is taken when the cell is executed.
"""

import re
from dataclasses import dataclass, replace

PRELUDE = """
import copy, functools, math, re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
import numpy as np
import pandas as pd
"""
SHOW = """
def show(v):
    if isinstance(v, np.ndarray): return (str(v.dtype), v.tolist())
    if isinstance(v, pd.DataFrame): return v.to_dict('list')
    if isinstance(v, dict): return [(k, show(x)) for k, x in v.items()]
    if isinstance(v, (set, frozenset)): return sorted(map(str, v))
    return v.total() if hasattr(v, 'total') else v
"""
DATA = ("int", "str", "list", "dict", "set", "array", "frame", "instance", "pattern", "tuple")


@dataclass(frozen=True)
class Slot:
    id: str
    kind: str
    text: str = ""
    calls: tuple = ()
    holds: tuple = ()
    parameters: tuple = ()
    files: tuple = ()
    module: str = ""
    changes: tuple = ()


class Writer:
    """Writes the text of slots.

    Parameters
    ----------
    pick
        A `random.Random`.
    number
        Tells the modules of one notebook from those of another.
    """

    def __init__(self, pick, number):
        self.pick = pick
        self.modules = (f"fz{number}a", f"fz{number}b")
        data = {f"g{at}": pick.choice(DATA) for at in range(6)}
        first, second = self.modules
        self.kinds = {f"a{at}": "asset" for at in reversed(range(5))}
        self.kinds |= {
            "h0": "helper",
            "K0": "class",
            "h1": "helper",
            "h2": "box",
            "d0": "decorator",
            "h3": "helper",
            "K1": "class",
            "h4": "helper",
            "q0": "alias",
            "h5": pick.choice(("helper", "box")),
        }
        self.kinds |= {
            f"{first}.inner": "inner",
            f"{first}.f": "helper",
            f"{first}.B": "class",
            f"{first}.K": "int",
            f"{first}.T": "dict",
        }
        self.kinds |= {f"{second}.f": "helper", f"{second}.K": "list"}
        self.kinds |= data
        self.kinds |= {"P0": "record"}
        self.ids = list(self.kinds)

    def literal(self, kind="int"):
        pick = self.pick
        number = pick.randrange(4)
        if kind == "int":
            return pick.choice((str(number), str(number), f"{number}.0", "True"))
        if kind == "str":
            return repr("s" * number)
        if kind == "list":
            return f"[{number}, {self.literal()}, [{self.literal()}]]"
        if kind == "dict":
            return f"{{'a': {number}, 'sub': {{'z': {self.literal()}}}}}"
        if kind == "set":
            return f"{{'a', 'b{number}', {pick.randrange(2)}}}"
        if kind == "array":
            return f"np.arange({number + 1}) * {pick.choice(('1', '1.0', '2'))}"
        if kind == "frame":
            return f"pd.DataFrame({{'a': [{number}, 2], 'b': ['x', {pick.choice(('None', repr('y')))}]}})"
        if kind == "pattern":
            return f"re.compile('{'a' * number}b')"
        return f"({number}, {self.literal()}, 'x')"

    def later(self, slot, *kinds):
        at = self.ids.index(slot)
        found = [name for name in self.ids[at + 1 :] if self.kinds[name] in kinds]
        if "." in slot:
            # A module knows itself and the other module.
            found = [name for name in found if "." in name]
        return self.pick.choice(found) if found else None

    def expression(self, slot, calls):
        """An expression over what a later slot defines; its slot is added to `calls`."""
        pick = self.pick
        name = self.later(slot, *(("helper", "alias", "box", "class") if pick.random() < 0.6 else DATA))
        if name is None or pick.random() < 0.1:
            return self.literal()
        calls.add(name)
        kind = self.kinds[name]
        told = f"<{name}>"
        if "." in slot:
            module, own = name.split(".")
            told = own if module == slot.split(".")[0] else name
        elif "." in name and pick.random() < 0.3:
            told = f"mm.{name.split('.')[1]}" if name.startswith(self.modules[0]) else name
        if kind in {"helper", "alias", "inner"}:
            return pick.choice(
                (f"{told}(1)", f"{told}({self.literal()})", f"list(map({told}, [1, 2]))", f"(lambda f: f(1))({told})")
            )
        if kind == "box":
            return f"{told}['f'](1)"
        if kind == "class":
            return pick.choice((f"{told}(1).run(2)", f"{told}.K", f"{told}.make(2).run(1)", f"{told}(1).p", f"{told}(3)(1)"))
        if "." in slot:
            return f"repr({told})"
        if kind == "instance":
            return f"{told}.total()"
        if kind == "dict" and pick.random() < 0.5:
            return pick.choice((f"{told}.get('a')", f"sorted(map(str, {told}))"))
        if kind == "frame" and pick.random() < 0.5:
            return f"{told}.query('a > 0')['a'].tolist()"
        return f"show({told})"

    def write(self, slot):
        """The text of a slot, made anew."""
        kind = self.kinds[slot]
        calls, holds = set(), set()
        text = getattr(self, f"_{kind}", self._value)(slot, calls, holds)
        parameters, files = (), ()
        if kind == "asset":
            text, parameters, files = text
        return Slot(
            slot,
            kind,
            text,
            tuple(sorted(calls)),
            tuple(sorted(holds)),
            parameters,
            files,
            slot.split(".")[0] if "." in slot else "",
        )

    def _own(self, slot):
        return slot.split(".")[1] if "." in slot else f"<{slot}>"

    def _value(self, slot, calls, holds):
        return f"{self._own(slot)} = {self.literal(self.kinds[slot])}\n"

    def _instance(self, slot, calls, holds):
        holds.add("P0")
        return f"{self._own(slot)} = <P0>({self.literal()})\n"

    def _record(self, slot, calls, holds):
        return self.pick.choice((
            f"class <P0>:\n    k = {self.literal()}\n    def __init__(self, v): self.v = v; self.items = [v]\n    def total(self): return (self.v, self.k, len(self.items), {self.literal()})\n",
            f"@dataclass\nclass <P0>:\n    v: object\n    w: int = {self.literal()}\n    items: list = field(default_factory=lambda: [{self.literal()}])\n    def total(self): return (self.v, self.w, self.items)\n",
        ))  # fmt: skip

    def _inner(self, slot, calls, holds):
        holds.add(f"{self.modules[1]}.f")
        return f"from {self.modules[1]} import f as inner\n"

    def _alias(self, slot, calls, holds):
        name = f"{self.modules[self.pick.randrange(2)]}.f"
        holds.add(name)
        return f"from {name.split('.', maxsplit=1)[0]} import f as <{slot}>\n"

    def _decorator(self, slot, calls, holds):
        one = self.expression(slot, calls)
        wraps = self.pick.choice(("", "    @functools.wraps(f)\n"))
        return f"def <{slot}>(f):\n    k = {self.literal()}\n{wraps}    def wrapper(x): return (k, {one}, f(x))\n    return wrapper\n"

    def _box(self, slot, calls, holds):
        one, two = self.expression(slot, calls), self.expression(slot, calls)
        return self.pick.choice((
            f"<{slot}> = {{'f': lambda x: (x, {one}), 'g': {self.literal()}}}\n",
            f"def made(x, k={self.literal()}): return (k, {one}, {two})\n<{slot}> = dict(f=partial(made, k={self.literal()}))\ndel made\n",
        ))  # fmt: skip

    def _class(self, slot, calls, holds):
        one, two = self.expression(slot, calls), self.expression(slot, calls)
        own = self._own(slot)
        base = self.later(slot, "class") if self.pick.random() < 0.5 else None
        head = (
            f"class {own}:\n    def __init__(self, v=0): self.v = v\n    @classmethod\n    def make(cls, v): return cls(v + 1)\n"
        )
        inherited = ""
        if base is not None and "." not in slot:
            holds.add(base)
            head = f"class {own}(<{base}>):\n" if "." not in base else f"class {own}({base}):\n"
            inherited = ", super().run(x)"
        return head + (
            f"    K = {self.literal(self.pick.choice(('int', 'list')))}\n    def run(self, x): return (self.v, x, self.K, {one}{inherited})\n"
            f"    def __call__(self, x): return self.run(x)\n    @property\n    def p(self): return ({two}, self.h())\n    @staticmethod\n    def h(): return {self.literal()}\n"
        )

    def _helper(self, slot, calls, holds):
        pick = self.pick
        one, two = self.expression(slot, calls), self.expression(slot, calls)
        own = self._own(slot)
        recursive = f"def {own}(n=2): return n and ({own}(int(n) - 1) if n == 2 else {two})\n"
        choices = [
            f"def {own}(x):\n    return (x, {one}, {two})\n",
            f"def {own}(x, k={self.literal()}):\n    for _ in range(2):\n        k = (k, {one})\n    return k\n",
            f"def {own}(x, *, k={self.literal('list')}):\n    return [k for _ in range(2)] + [{one}]\n",
            f"{own} = lambda x: (x, {one}) if x else {two}\n",
            recursive,
            f"def {own}(x):\n    try:\n        return [y for y in [{one}, x]]\n    except KeyError:\n        return {two}\n",
            f"def {own}(x):\n    def nested(y): return (y, {one})\n    return [nested(i) for i in range(2)]\n",
        ]
        if "." not in slot:
            choices += [
                f"def make(k):\n    def inner(x): return (k, x, {one})\n    return inner\n{own} = make({self.literal('list')})\n",
                f"{own} = partial(lambda a, x, b=1: (a, b, x, {one}), {self.literal()}, b={self.literal()})\n",
                f"class Held:\n    def __init__(self, k): self.k = k\n    def __call__(self, x): return (self.k, {one})\n{own} = Held({self.literal('dict')})\n",
                f"@functools.wraps(len)\ndef {own}(x): return {one}\n",
                f"@functools.singledispatch\ndef {own}(x): return {one}\n@{own}.register\ndef _(x: int): return {two}\n",
                f"def {own}(x):\n    return np.vectorize(lambda v: v + {self.literal()})([1, 2]).tolist(), {one}\n",
            ]
            value = self.later(slot, "list", "dict", "instance", "array")
            helper = self.later(slot, "helper", "alias")
            cls = self.later(slot, "class")
            decorator = self.later(slot, "decorator")
            if value and "." not in value:
                choices.append((f"def {own}(x, d=<{value}>): return (x, show(d), {one})\n", value))
                choices.append((f"def make(k):\n    return lambda x: (show(k), x, {one})\n{own} = make(<{value}>)\n", value))
            if helper:
                choices.append(
                    (
                        f"{own} = (lambda f: lambda x: (f(x), {one}))({helper if '.' in helper else f'<{helper}>'})\n",
                        helper,
                    )
                )
            if cls:
                told = cls if "." in cls else f"<{cls}>"
                choices.append((f"{own} = {told}({self.literal()})\n", cls, True))
                choices.append((f"{own} = {told}({self.literal()}).run\n", cls, True))
            if decorator:
                choices.append((f"@<{decorator}>\ndef {own}(x): return (x, {one})\n", decorator))
        # What a function holds is the easiest to forget.
        choices += [one for one in choices if type(one) is tuple or "def inner" in one or "partial" in one] * 2
        chosen = pick.choice(choices)
        if type(chosen) is tuple:
            holds.add(chosen[1])
            if len(chosen) > 2:
                calls.clear()
            chosen = chosen[0]
        if chosen is recursive:
            # Held by another slot while its own is edited, it goes on with what its name means then.
            calls.add(slot)
        return chosen

    def _asset(self, slot, calls, holds):
        pick = self.pick
        at = int(slot[1:])
        parameters = tuple(sorted(pick.sample([f"a{other}" for other in range(at)], min(at, pick.randrange(3)))))
        parts = [self.expression(slot, calls) for _ in range(pick.randrange(1, 4))] + [f"show({name})" for name in parameters]
        files = ()
        if pick.random() < 0.3:
            files = (f"x{pick.randrange(2)}.txt",)
            parts.append(pick.choice((f"open('{files[0]}').read()", f"Path('{files[0]}').read_text()")))
        if pick.random() < 0.2:
            name = f"{pick.choice(self.modules)}.f"
            calls.add(name)
            parts.append(f"{name}(1)")
            head = f"    import {name.split('.', maxsplit=1)[0]}\n"
        else:
            head = ""
        body = f"({', '.join(parts)},)"
        body = pick.choice(
            (
                body,
                body,
                f"len(str({body})) % 3",
                f"np.array([len(str(x)) for x in {body}])",
                f"pd.DataFrame({{'x': [str(x) for x in {body}]}})",
                f"{{'r': {body}}}",
            )
        )
        return (
            f"def <{slot}>({', '.join(f'<{name}>' for name in parameters)}):\n{head}    return {body}\n",
            parameters,
            files,
        )

    # -- edits of one slot

    def other_value(self, slot: Slot):
        """One number or string of the text is another."""
        found = list(re.finditer(r"(?<![\w<'.])\d(?![\w.>])", slot.text))
        if not found:
            return self.write(slot.id)
        place = self.pick.choice(found)
        return replace(slot, text=f"{slot.text[: place.start()]}{self.pick.randrange(4)}{slot.text[place.end() :]}")

    def commented(self, slot: Slot):
        """The same code, told otherwise."""
        text = f"# note {self.pick.randrange(100)}\n" + re.sub(r"\n+$", f"\n\n# end {self.pick.randrange(100)}\n", slot.text)
        return replace(
            slot,
            text=re.sub(
                r"(    )(return .*\n)",
                lambda found: f"{found[1]}# why {self.pick.randrange(9)}\n\n{found[1]}{found[2]}",
                text,
                count=1,
            )
            if self.pick.random() < 0.5 and "\n    return" in text and ":\n    return" in text
            else text,
        )

    def change_in_place(self, slot: Slot):
        """A statement that changes what a slot is bound to without binding it anew; empty if its kind cannot be."""
        told = f"<{slot.id}>" if "." not in slot.id else slot.id
        pick = self.pick
        choices = {
            "list": (
                f"{told}.append({self.literal()})",
                f"{told}[0] = {self.literal()}",
                f"{told}[-1:] = [[{self.literal()}]]",
            ),
            "dict": (
                f"{told}['a'] = {self.literal()}",
                f"{told}['sub']['z'] = {self.literal()}",
                f"{told}['n{pick.randrange(2)}'] = {self.literal()}",
                f"{told}.pop('n0', None)",
            ),
            "set": (f"{told}.add('b{pick.randrange(4)}')",),
            # An edit of a value can make the array empty.
            "array": (f"{told}[:1] = {pick.randrange(4)}",),
            "frame": (f"{told}.loc[0, 'a'] = {pick.randrange(4)}", f"{told}['c'] = {pick.randrange(4)}"),
            "instance": (f"{told}.v = {self.literal()}", f"{told}.items.append({self.literal()})"),
            "class": (f"{told}.K = {self.literal()}", f"{told}.h = staticmethod(lambda: {self.literal()})"),
        }
        found = choices.get(slot.kind)
        return pick.choice(found) + "\n" if found else ""
