"""Annotations and documentation count only if reached code reads them."""

import pytest
from edited_cells import digest, run_cells, version

from stepwell.kernel_runtime.versions.walk import CodeWalk

PLAIN = "def h(x: int) -> int:\n    'Doc.'\n    return x\n"
READERS = {
    "signature": "import inspect\ndef target(): return inspect.signature(h)\n",
    "signature by name": "from inspect import signature\ndef target(): return signature(h)\n",
    "signature by another name": "from inspect import signature as s\ndef target(): return s(h)\n",
    "signature imported inside": "def target():\n    from inspect import signature\n    return signature(h)\n",
    "full arguments": "import inspect\ndef target(): return inspect.getfullargspec(h).annotations\n",
    "type hints": "import typing\ndef target(): return typing.get_type_hints(h)\n",
    "annotations": "def target(): return h.__annotations__\n",
    "through a parameter": "import inspect\ndef schema(f): return inspect.signature(f).return_annotation\ndef target(): return schema(h)\n",
    "in a nested function": "import inspect\ndef target():\n    def schema(f): return inspect.signature(f)\n    return schema(h)\n",
    "of what a container holds": "import typing\nALL = [h]\ndef target(): return [typing.get_type_hints(f) for f in ALL]\n",
    "attribute of a local": "def target():\n    f = h\n    return f.__annotations__\n",
    "wrapper of a library": "import numpy as np\nfrom joblib import wrap_non_picklable_objects\nw = wrap_non_picklable_objects(h)\nimport inspect\ndef target(): return inspect.signature(w)\n",
}


@pytest.mark.parametrize("name", READERS)
def test_annotations_count_for_code_that_reads_them(name):
    code = READERS[name]
    before = version(PLAIN, code)
    assert before.unverifiable == ()
    assert digest(PLAIN, code) == before.digest
    assert digest(PLAIN.replace("x: int", "x: float"), code) != before.digest
    assert digest(PLAIN.replace("-> int", "-> 'int'"), code) != before.digest


@pytest.mark.parametrize("code", ["def target(): return h.__doc__\n", "def target():\n    f = h\n    return f.__doc__\n", "import inspect\ndef target(): return inspect.getdoc(h)\n", "class A:\n    'Doc.'\nX = A()\ndef target(): return (X.__doc__, h)\n"])  # fmt: skip
def test_documentation_counts_for_code_that_reads_it(code):
    before = version(PLAIN, code)
    assert before.unverifiable == ()
    assert digest(PLAIN.replace("Doc.", "Other."), code.replace("Doc.", "Other.")) != before.digest


@pytest.mark.parametrize("code", ["def target(): return h(1)\n", "import inspect\ndef other(): return inspect.signature(h)\ndef target(): return h(1)\n"])  # fmt: skip
def test_neither_counts_for_other_code(code):
    assert digest(PLAIN, code) == digest("def h(x: str):\n    return x\n", code)


def test_which_function_has_which_annotation_counts():
    code = "import inspect\ndef target(): return [inspect.signature(f) for f in (f, g)]\n"
    first = digest("def f(x: int): return 1\ndef g(x: str): return 2\n", code)
    assert first != digest("def f(x: str): return 1\ndef g(x: int): return 2\n", code)


def test_a_class_in_an_annotation_counts_with_its_code():
    code = "import typing\ndef h(x: A): return x\ndef target(): return typing.get_type_hints(h)['x'](1).k\n"
    cell = "class A:\n    def __init__(self, v): self.k = v\n"
    assert digest(cell, code) != digest(cell.replace("= v", "= v + 1"), code)


def test_an_annotation_changed_in_a_live_kernel_is_noticed_and_told():
    space = run_cells(PLAIN, READERS["signature"])

    def now():
        walk = CodeWalk(namespace=space)
        found = walk.of(space["target"], path="target").digest
        return found, {part.path: part.text for part in walk.parts(space["target"], path="target")}

    before, _ = now()
    space["h"].__annotations__["x"] = str
    after, parts = now()
    assert after != before
    assert "'x': <class 'str'>" in parts["target -> h.signature"]
