"""Which names a body may read from outside, against what running it shows."""

import ast
import builtins

import pytest

from stepwell.magics.cell_names import names_of


def reads(body):
    return {name for name in names_of(ast.parse(body)).reads if not hasattr(builtins, name)}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = x", {"x"}),
        ("x = 1\ny = x", set()),
        ("x += 1", {"x"}),
        ("x: int\ny = x", {"x"}),
        ("x: T = 1\ny = x", {"T"}),
        ("if c:\n    x = 1\ny = x", {"c", "x"}),
        ("if c:\n    x = 1\nelse:\n    x = 2\ny = x", {"c"}),
        ("if c:\n    x = 1\nelse:\n    raise E\ny = x", {"c", "E"}),
        ("for i in items:\n    x = i\ny = x", {"items", "x"}),
        ("for i in items:\n    pass\nelse:\n    x = 1\ny = x", {"items"}),
        ("for i in items:\n    break\nelse:\n    x = 1\ny = x", {"items", "x"}),
        ("while True:\n    x = 1\n    break\ny = x", set()),
        ("while c:\n    x = 1\ny = x", {"c", "x"}),
        ("try:\n    x = f()\nexcept E:\n    x = 0\ny = x", {"f", "E"}),
        ("try:\n    x = f()\nexcept E:\n    pass\ny = x", {"f", "E", "x"}),
        ("try:\n    f()\nexcept E as e:\n    pass\ny = e", {"f", "E", "e"}),
        ("try:\n    f()\nfinally:\n    x = 1\ny = x", {"f"}),
        ("with f() as x:\n    y = x", {"f"}),
        ("import a.b\ny = a", set()),
        ("import a.b as c\ny = c, a", {"a"}),
        ("from m import n as x\ny = x, n", {"n"}),
        ("x = 1\ndel x\ny = x", {"x"}),
        ("y = [x for x in z if x in w]", {"z", "w"}),
        ("y = [x for x in x]", {"x"}),
        ("y = {k: v for k, v in z.items() if (n := k)}\nq = n", {"z", "n"}),
        ("y = (x := 1) + x", set()),
        ("y = a and (x := 1)\nz = x", {"a", "x"}),
        ("y = (x := 1) if c else 2\nz = x", {"c", "x"}),
        ("y = lambda a, b=d: a + b + x", {"d", "x"}),
        ("def f(a):\n    return a + x\nx = 1\ny = f(2)", set()),
        ("def f(a):\n    return a + x\ny = f(2)\nx = 1", {"x"}),
        ("def f():\n    return x\n", {"x"}),
        ("def f():\n    def g():\n        return x\n    return g\nx = 1", set()),
        ("def f():\n    x = 1\n    def g():\n        return x\n    return g\nf()", set()),
        ("def fact(n):\n    return n * fact(n - 1) if n else 1\ny = fact(5)", set()),
        (
            "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)\ny = even(4)",
            set(),
        ),
        ("def f(a=x, *, b=y) -> T:\n    z = 1\n    return z", {"x", "y", "T"}),
        ("@deco\ndef f():\n    return x", {"deco", "x"}),
        ("def f():\n    global x\n    x = 1\nf()\ny = x", {"x"}),
        ("class A(B):\n    n = m\n    def f(self):\n        return self.n + k", {"B", "m", "k"}),
        ("class A:\n    n = 1\n    m = n\n    def f(self):\n        return n", {"n"}),
        ("class A:\n    x = x", {"x"}),
        ("class A:\n    def f(self):\n        return A\nA().f()", set()),
        (
            "match p:\n    case [a, *rest]:\n        y = a\n    case {'k': v, **more}:\n        y = v\n    case C(z=q):\n        y = q\n    case _:\n        y = 1\nz = y",
            {"p", "C"},
        ),
        ("match p:\n    case 1:\n        y = 1\nz = y", {"p", "y"}),
        ("async def f():\n    return await g(x)\ny = await f()", {"g", "x"}),
        ("async with a as b:\n    y = b\nasync for c in d:\n    pass", {"a", "d"}),
        ("x.y = 1\nz[i] = 2", {"x", "z", "i"}),
        ("x = y = x", {"x"}),
        ("a, (b, *c) = z\nd = a, b, c", {"z"}),
        ("y = f'{x:>{w}}'", {"x", "w"}),
        ("g = lambda: x\nx = 1\ny = g()", set()),
        ("def f():\n    return [x for _ in z]\ny = f()", {"x", "z"}),
        ("if c:\n    x = 1\n    def f():\n        return x\n    f()\nf()", {"c", "x", "f"}),
        ("raise E\n", {"E"}),
        ("try:\n    pass\nexcept* E:\n    pass", {"E"}),
    ],
)
def test_names_that_may_come_from_outside(body, expected):
    assert reads(body) == expected


@pytest.mark.parametrize(
    ("body", "early"),
    [
        ("clean = clean.dropna()", True),
        ("clean += 1", True),
        ("for i in range(3):\n    clean = i\nclean", False),
        ("if c:\n    clean = 1\nclean", False),
        ("for i in z:\n    if i:\n        clean = clean + i\n    else:\n        clean = 0", False),
        ("def clean():\n    return clean", False),
        ("clean = 0\nclean += 1", False),
        ("def f():\n    return clean\nclean = f()", True),
        ("clean = [clean for clean in z]", False),
    ],
)
def test_a_name_that_no_path_has_assigned_when_it_is_read(body, early):
    assert ("clean" in names_of(ast.parse(body)).read_first) is early


def test_what_a_body_binds():
    names = names_of(
        ast.parse(
            "import a.b, c as d\nfrom e import f\nx = 1\ny: int = 2\nfor i in z: pass\nwith q as w: pass\n(v := 3)\ndef g():\n    global h\n    h = 1\n    local = 2\nclass K: n = 1\nu += 1"
        )
    )
    assert names.assigned == {"a", "d", "f", "x", "y", "i", "w", "v", "g", "h", "K", "u"}
    assert names.imported == {"a", "d", "f"}
