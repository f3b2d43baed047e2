"""Names: what a cell assigns, imports and defines is there for later cells; names that are assigned again; values that cannot be stored."""

from oracle import Case

PLOT = "import matplotlib.pyplot as plt"


def after(name, body, later, watch, *, setup="", reused=("start",), runs=2, value="start"):
    """An asset cell, and a plain cell that uses what it left."""
    cells = [*([setup] if setup else []), f"%%asset {value}\n{body}", later]
    return Case(name, [cells] * runs, watch, reused=reused)


CASES = [
    # Imports, functions, classes and variables of an asset cell.
    Case(
        "import_inside",
        [
            [
                "%%asset start\nimport math\nstart = math.pi",
                "area = math.sqrt(16)",
                "%%asset after\nafter = math.floor(start)",
            ]
        ]
        * 2,
        ["area", "after"],
        reused=["start", "after"],
    ),
    after(
        "imports_of_many_forms",
        "import numpy as np, os.path\nimport xml.etree.ElementTree as ET\nfrom collections import Counter as C, deque\nstart = 1",
        "n = (int(np.arange(3).sum()), os.path.basename('a/b'), ET.fromstring('<a/>').tag, C('aa')['a'], len(deque([1])))",
        ["n"],
    ),
    after(
        "import_in_a_try",
        "try:\n    import not_there_at_all as j\nexcept ImportError:\n    import json as j\nstart = 1",
        "n = j.dumps([1])",
        ["n"],
    ),
    after(
        "imports_with_fallbacks",
        "try:\n    import not_there_at_all\n    HAS = True\nexcept ImportError:\n    not_there_at_all = None\n    HAS = False\nelse:\n    import abc as found\nfinally:\n    import string as s\n"
        "try:\n    from not_there_at_all import dumps\nexcept ImportError:\n    def dumps(x):\n        return 'mine'\n"
        "try:\n    from json import dumps as d\nexcept ImportError:\n    def d(x):\n        return 'mine'\n"
        "import os.path, xml.dom\nfrom xml import dom\nstart = 1",
        "n = HAS, not_there_at_all, 'found' in globals(), s.digits, dumps(1), d([1]), os.path.basename('a/b'), dom is xml.dom",
        ["n"],
    ),
    after(
        "definitions_on_one_of_two_paths",
        "import sys\nif sys.version_info > (3,):\n    import json as j\n    def f(x):\n        return x + 1\n    class P:\n        def get(self):\n            return 1\n    g = lambda x: x + 1\nelse:\n    import pickle as j\n    def f(x):\n        return x + 2\n    class P:\n        def get(self):\n            return 2\n    g = lambda x: x + 2\nstart = f(1)",
        "n = f(1), P().get(), g(1), j.__name__",
        ["n"],
    ),
    Case(
        "classes_of_data_on_one_of_two_paths",
        [
            [
                f"%%asset start\nif {k}:\n    class P:\n        k = 1\nelse:\n    class P:\n        k = 2\nstart = P.k",
                "n = P.k, P.__name__, isinstance(P(), P)",
                "%%asset more\nmore = [P(), start]",
                "m = type(more[0]) is P",
            ]
            for k in (1, 0, 1, 1)
        ],
        ["n", "start", "m"],
        reused=["start", "more"],
    ),
    after(
        "name_imported_and_assigned",
        "from string import digits\nfrom string import ascii_lowercase as letters\ndigits = digits[:3]\nletters = letters * 1\nimport math as m\nm = m.pi\nstart = len(digits)",
        "n = digits, letters, m",
        ["n"],
    ),
    after(
        "classes_made_by_calls",
        "import dataclasses, enum, collections, typing\nPoint = collections.namedtuple('Point', 'x y')\nColor = enum.Enum('Color', 'RED BLUE')\nMade = dataclasses.make_dataclass('Made', ['a'])\nclass Row(typing.NamedTuple):\n    a: int\nNew = type('New', (), {'k': 3})\nstart = Point(1, 2), Color.RED, Made(3), Row(4)",
        "n = type(start[0]) is Point, start[1] is Color.RED, isinstance(start[2], Made), type(start[3]) is Row, New.k, Point(3, 4).y",
        ["n"],
    ),
    Case(
        "module_appears",
        [
            [
                "%%asset start\ntry:\n    import extra as j\nexcept ImportError:\n    import json as j\nstart = j.__name__",
                "n = j.__name__",
            ]
        ]
        * 3,
        ["n", "start"],
        files=[{}, {"extra.py": "x = 1"}, {"extra.py": "x = 1"}],
        reused=["start"],
    ),
    Case(
        "imports_read_by_assets",
        [
            [
                "%%asset start\nimport numpy as np\nstart = np.arange(3)",
                "%%asset n\nn = int(np.sum(start))",
                "m = np.max(start).item()",
            ]
        ]
        * 2,
        ["n", "m"],
        reused=["start", "n"],
    ),
    Case(
        "variables_inside",
        [
            [
                "%%asset model\nrows = [1, 2, 3, 4]\ntrain, test = rows[:3], rows[3:]\nmodel = sum(train)",
                "n = len(test)",
                f"%%asset score\nscore = model * test[0] + {k}",
                "size = len(rows)",
            ]
            for k in (0, 0, 1)
        ],
        ["n", "score", "size", "train"],
        reused=["model"],
    ),
    Case(
        "variables_inside_edited_upstream",
        [
            [
                f"K = {k}",
                "%%asset model\nrows = [1, 2, 3, K]\ntest = rows[3:]\nmodel = 1",
                "%%asset score\nscore = test[0] * 10",
                "n = list(test)",
            ]
            for k in (4, 5, 4, 4)
        ],
        ["n", "score"],
        reused=["model", "score"],
    ),
    Case(
        "unread_variable_edited",
        [
            [f"%%asset model\nseen = {k}\ntest = [1, 2]\nmodel = 1", "%%asset score\nscore = len(test)", "n = seen"]
            for k in (4, 5)
        ],
        ["n", "score"],
        reused=["score"],
    ),
    Case(
        "function_inside",
        [
            [
                "%%asset start\ndef double(x):\n    return 2 * x\nstart = double(4)",
                "there = double(5)",
                "%%asset after\nafter = double(start)",
            ]
        ]
        * 2,
        ["there", "after"],
        reused=["start", "after"],
    ),
    Case(
        "function_inside_edited",
        [
            [
                f"%%asset start\ndef times(x):\n    return {k} * x\nstart = 4",
                "there = times(5)",
                "%%asset after\nafter = times(start)",
            ]
            for k in (2, 3, 2)
        ],
        ["there", "after"],
    ),
    Case(
        "function_inside_reads_a_variable_inside",
        [
            [
                "%%asset start\nbase = 2\ndef plus(x):\n    return base + x\nstart = plus(1)",
                "here = plus(5)",
                "base = 10",
                "there = plus(5)",
                "%%asset after\nafter = plus(start)",
            ]
        ]
        * 2,
        ["here", "there", "after"],
        reused=["start", "after"],
    ),
    Case(
        "function_inside_defined_again",
        [
            [
                "%%asset start\ndef f(x):\n    return x + 1\nstart = f(1)",
                f"def f(x):\n    return x + {k}",
                "%%asset after\nafter = f(start)",
                "here = f(0)",
            ]
            for k in (10, 20, 20)
        ],
        ["start", "after", "here"],
        reused=["start", "after"],
    ),
    Case(
        "class_inside",
        [
            [
                "%%asset start\nclass P:\n    def __init__(self, x):\n        self.x = x\nstart = P(3)",
                "same = isinstance(start, P)",
                "%%asset n\nn = P(start.x + 1).x",
                "q = P(5).x",
            ]
        ]
        * 2,
        ["same", "n", "q"],
        reused=["start", "n"],
    ),
    Case(
        "dataclass_inside",
        [
            [
                "%%asset start\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 1\nstart = [P(), P(2)]",
                "n = sum(p.x for p in start), P(9), type(start[0]) is P",
            ]
        ]
        * 3,
        ["n"],
        reused=["start"],
    ),
    after(
        "decorator_inside",
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(x):\n        return f(f(x))\n    return g\n@twice\ndef inc(x):\n    return x + 1\nstart = inc(1)",
        "@twice\ndef dec(x):\n    return x - 1\nn = dec(5), inc(1), inc.__name__",
        ["n"],
    ),
    after("lambda_inside", "square = lambda x: x * x\nstart = square(2)", "n = list(map(square, [1, 2]))", ["n"]),
    after(
        "nested_and_recursive_functions_inside",
        "def outer(n):\n    def inner(k):\n        return 1 if k == 0 else k * inner(k - 1)\n    return inner(n)\ndef even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)\nstart = outer(3)",
        "n = outer(5), even(4), odd(4)",
        ["n"],
    ),
    after(
        "loop_variables_inside",
        "total = 0\nfor i, word in enumerate(['a', 'b']):\n    total += i\nstart = [j for j in range(3)]",
        "n = i, word, total, 'j' in globals()",
        ["n"],
    ),
    after(
        "with_as_inside",
        "import io\nwith io.StringIO('abc') as f:\n    text = f.read()\nstart = len(text)",
        "n = text, f.closed",
        ["n"],
    ),
    after(
        "open_file_inside",
        "with open('in.txt', 'w') as f:\n    f.write('abc')\nstart = 3",
        "n = f.closed, f.name",
        ["n"],
        reused=(),
    ),
    after(
        "walrus_inside",
        "start = [y for x in [1, 2, 3] if (y := x * 2) > 2]\nif (n := len(start)) > 1:\n    big = True",
        "m = y, n, big",
        ["m"],
    ),
    after(
        "try_inside",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    caught = type(e).__name__\nfinally:\n    done = True\nstart = caught",
        "n = caught, done, 'e' in globals()",
        ["n"],
    ),
    after("name_deleted_inside", "tmp = [1]\nstart = len(tmp)\ndel tmp", "n = 'tmp' in globals()", ["n"]),
    after(
        "name_of_the_notebook_deleted",
        "start = len(big)\ndel big",
        "n = 'big' in globals()",
        ["start", "n"],
        setup="big = [1, 2]",
    ),
    after(
        "names_of_the_notebook_deleted_in_turn",
        "start = 0\ndef drop():\n    global big\n    del big\nfor part in [big, other]:\n    start += len(part)\n    del part\ndrop()\nif start > 2:\n    del other",
        "n = [name in globals() for name in ('big', 'other', 'part')]",
        ["start", "n"],
        setup="big = [1, 2]\nother = [3]",
    ),
    Case(
        "asset_deleted_by_an_asset",
        [["%%asset big\nbig = [1, 2]", "%%asset start\nstart = len(big)\ndel big", "n = 'big' in globals(), start"]] * 2,
        ["n"],
        reused=["big", "start"],
    ),
    Case(
        "deleted_again_in_one_kernel",
        [
            [
                *[
                    ("a", "big = [1, 2]"),
                    ("b", "%%asset start\nstart = len(big)\ndel big"),
                    ("c", "n = 'big' in globals(), start"),
                ],
                *[
                    ("a", "big = [1, 2]"),
                    ("b", "%%asset start\nstart = len(big)\ndel big"),
                    ("c", "n = 'big' in globals(), start"),
                ],
            ]
        ]
        * 2,
        ["n"],
        reused=["start"],
    ),
    Case(
        "deleted_and_bound_later",
        [
            [
                "big = [1, 2]",
                "%%asset start\nstart = len(big)\ndel big",
                f"big = [{k}]",
                "%%asset more\nmore = big + [start]\ndel big",
                "n = 'big' in globals(), more",
            ]
            for k in (1, 2, 2)
        ],
        ["n"],
        reused=["start", "more"],
    ),
    after(
        "star_unpacking_inside",
        "first, *rest, last = range(5)\n(a, b), c = (1, 2), 3\nstart = last",
        "n = first, rest, last, a, b, c",
        ["n"],
    ),
    after(
        "augmented_assignment_of_the_notebooks",
        "n += 1\nwords += ['b']\nstart = n * 2",
        "m = n, words",
        ["start", "n", "words", "words is same"],
        setup="n = 1\nwords = ['a']\nsame = words",
    ),
    after("name_of_the_notebook_assigned", "x = 5\nstart = x * 2", "z = x", ["start", "x", "z"], setup="x = 1"),
    after("global_in_a_function_inside", "def f():\n    global made\n    made = 7\nf()\nstart = made", "n = made", ["n"]),
    after("name_through_globals", "globals()['made'] = 5\nstart = 1", "n = made", ["n"], reused=()),
    after("name_through_exec", "exec('made = 5')\nstart = 1", "n = made", ["n"], reused=()),
    after("private_and_shadowing_names", "_tmp = 4\nlist = [1]\nstart = _tmp", "n = _tmp, list", ["n"]),
    after(
        "conditional_name",
        "if flag:\n    only = 1\nelse:\n    other = 2\nstart = 3",
        "n = 'only' in globals(), 'other' in globals()",
        ["n"],
        setup="flag = False",
    ),
    after(
        "comprehension_over_names",
        "names = ['a', 'b']\nlookup = {k: v for v, k in enumerate(names)}\nstart = lookup['b']",
        "n = lookup, sorted(names)",
        ["n"],
    ),
    after("annotated_names", "count: int = 3\nlabel: str\nstart = count", "n = count, 'label' in globals()", ["n"]),
    after(
        "match_inside",
        "match {'k': [1, 2]}:\n    case {'k': [first, *more]}:\n        pass\nstart = first",
        "n = first, more",
        ["n"],
    ),
    after(
        "await_inside",
        "import asyncio\nasync def slow(x):\n    await asyncio.sleep(0)\n    return x + 1\nstart = await slow(1)\nboth = await asyncio.gather(slow(2), slow(3))",
        "n = both, await slow(5)",
        ["n", "start"],
    ),
    after("last_result", "x = 20\nx + 1", "b = _ + 1", ["b"], value="start", reused=()),
    after("displayed_expression_with_a_value", "start = [1, 2]\nlen(start)", "b = _ + 1", ["b", "start"]),
    after("last_result_reused", "x = 20\n[x, 1]", "b = [*_, 2]\nsame = _ is Out[max(Out)], len(Out)", ["b", "same"]),
    after(
        "last_result_suppressed",
        "start = [1, 2]\nlen(start);",
        "b = _, __\nn = list(Out.values())",
        ["b", "n"],
        setup="'before'",
    ),
    after("last_result_is_none", "start = [1, 2]\nstart.append(3)", "b = _, len(Out)", ["b"], setup="'before'"),
    Case(
        "last_results_in_turn",
        [
            [
                "'zero'",
                "%%asset a\na = {'x': [1]}\na['x']",
                "_.append(2)",
                "%%asset b\nb = [3]\nsum(b) * 10",
                "%%multi_asset c d\nc, d = 1, [2]\nd",
                "n = _, __, ___, list(Out.values()), globals()[f'_{max(Out)}'], _ is d",
                "%%asset e\ne = str(_) + str(__)",
                "%%asset f\nf = len(Out)",
                "last = In[-1], type(_i)",
            ]
        ]
        * 3,
        ["n", "a", "e", "f", "last", "Out[max(Out)] is d"],
        reused=["a", "b", "c", "d", "e"],
    ),
    Case(
        "last_result_read_by_an_asset",
        [
            [
                f"%%asset a\na = [1, {k}]\na[-1] * 2",
                "%%asset b\nb = _ + 1",
                "n = b",
            ]
            for k in (1, 2, 1, 1)
        ],
        ["n"],
        reused=["a", "b"],
    ),
    Case(
        "last_result_that_cannot_be_stored",
        [
            [
                "%%asset a\na = [1, 2]\n(each * 2 for each in a)",
                "'other'",
                "n = list(__), type(Out[min(Out)]).__name__",
            ]
        ]
        * 2,
        ["n"],
        says="a: runs again, because __ is needed and was not stored",
    ),
    Case(
        "last_result_after_an_error",
        [["'before'", "%%asset a\na = [1]\na[5]", "n = _"], ["'before'", "%%asset a\na = [1]\na[5]", "n = _"]],
        ["n"],
        fails=True,
    ),
    Case(
        "last_result_of_a_model",
        [
            [
                "from sklearn.linear_model import LinearRegression\nimport pandas as pd",
                "%%asset model\nmodel = LinearRegression()\nmodel.fit([[1], [2]], [2, 4])",
                "same = _ is model",
                "%%asset df\ndf = pd.DataFrame({'v': [3, 1, 2]})\ndf.sort_values('v')",
                "n = _.v.tolist(), type(__).__name__",
                "_ = 5",
                "%%asset k\nk = 1\nk + 1",
                "m = _, list(Out.values())[-1]",
            ]
        ]
        * 2,
        ["same", "n", "m"],
        reused=["model", "df", "k"],
    ),
    Case(
        "last_result_of_a_figure",
        [
            [
                PLOT,
                "%%asset fig\nfig, ax = plt.subplots()\nax.plot([1, 2])\nax.set_title('t')",
                "n = _.get_text(), _ is ax.title",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "last_result_in_one_kernel",
        [
            [
                *[
                    ("a", "%%asset a\na = [1]\nlen(a) * 7"),
                    ("b", "n = [_]"),
                    ("c", "'other'"),
                    ("a", "%%asset a\na = [1]\nlen(a) * 7"),
                ],
                *[("d", "m = _, __")],
            ]
        ]
        * 2,
        ["n", "m"],
        reused=["a"],
        sequence=True,
    ),
    Case(
        "multi_asset_with_more_names",
        [
            [
                f"K = {k}",
                "%%multi_asset train test\nrows = list(range(6))\ntrain, test = rows[:4], rows[4:]\nmean = sum(train) / K",
                "%%asset score\nscore = [x - mean for x in test]",
                "n = mean, len(rows)",
            ]
            for k in (4, 2, 4, 4)
        ],
        ["score", "n", "train"],
        reused=["train", "test", "score"],
    ),
    # Pools over functions of the same cell.
    Case(
        "fork_pool_in_the_same_cell",
        [
            [
                "import multiprocessing",
                "%%asset squares\ndef square(x):\n    return x * x\nwith multiprocessing.get_context('fork').Pool(2) as pool:\n    squares = pool.map(square, [1, 2, 3])",
            ]
        ]
        * 2,
        ["squares"],
        reused=["squares"],
    ),
    Case(
        "executor_in_the_same_cell",
        [
            [
                "from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor\nimport multiprocessing",
                "%%asset squares\nK = 2\ndef square(x):\n    return x * x + K\nwith ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork')) as pool:\n    squares = list(pool.map(square, [1, 2, 3]))\nwith ThreadPoolExecutor(2) as threads:\n    more = list(threads.map(square, [4]))",
                "n = more, square(1)",
            ]
        ]
        * 2,
        ["squares", "n"],
        reused=["squares"],
    ),
    Case(
        "joblib_in_the_same_cell",
        [
            [
                "from joblib import Parallel, delayed",
                "%%asset squares\noffset = 1\ndef square(x):\n    return x * x + offset\nsquares = Parallel(n_jobs=2)(delayed(square)(i) for i in range(4))",
                "n = Parallel(n_jobs=2, prefer='threads')(delayed(square)(i) for i in range(2))",
            ]
        ]
        * 2,
        ["squares", "n"],
        reused=["squares"],
    ),
    # Figures.
    Case(
        "plot_that_ends_in_a_loop",
        [[PLOT, "%%asset picture\nfig, axes = plt.subplots(1, 2)\nfor ax in axes:\n    ax.plot([1, 2])", "done = 1"]] * 2,
        ["done"],
        reused=["picture"],
    ),
    Case(
        "axes_used_later",
        [
            [
                PLOT,
                "%%asset fig\nfig, ax = plt.subplots()\nax.plot([1, 2, 3])",
                "ax.set_title('later')",
                "n = fig.axes[0].get_title(), fig.axes[0] is ax, len(ax.lines), ax.figure is fig",
            ]
        ]
        * 2,
        ["n"],
        reused=["fig"],
    ),
    Case(
        "axes_in_an_array",
        [
            [
                PLOT,
                "%%asset picture\nfig, axes = plt.subplots(2, 2, figsize=(4, 4))\nfor i, ax in enumerate(axes.flat):\n    ax.bar([1], [i])",
                "axes[1, 1].set_xlabel('x')",
                "n = fig.axes[3].get_xlabel(), axes.shape, ax is axes[1, 1]",
            ]
        ]
        * 2,
        ["n"],
        reused=["picture"],
    ),
    Case(
        "plot_without_names",
        [
            [
                PLOT,
                "%%asset picture\nplt.plot([1, 2])\nplt.title('t')\nfor x in [1]:\n    plt.axvline(x)",
                "n = len(plt.get_fignums()) <= 1, x",
            ]
        ]
        * 2,
        ["n"],
    ),
    # Names that are assigned again.
    Case(
        "frame_assigned_again",
        [
            [
                "import pandas as pd",
                "df = pd.DataFrame({'v': [1, 2]})",
                "%%asset first\nfirst = int(df.v.sum()) * 11",
                "df = pd.DataFrame({'v': [1, 2, 2]})",
                "%%asset second\nsecond = first + len(df)",
            ]
        ]
        * 2,
        ["first", "second"],
        reused=["first", "second"],
    ),
    Case(
        "frame_assigned_again_edited",
        [
            [
                "import pandas as pd",
                "df = pd.DataFrame({'v': [1, 2]})",
                "%%asset first\nfirst = int(df.v.sum()) * 11",
                f"df = pd.DataFrame({{'v': [1, 2, {k}]}})",
                "%%asset second\nsecond = first + int(df.v.sum())",
            ]
            for k in (2, 3)
        ],
        ["first", "second"],
        reused=["first"],
        ran=["second"],
    ),
    Case(
        "helper_defined_again",
        [["def f(x):\n    return x + 1", "%%asset a\na = f(1)", "def f(x):\n    return x + 2", "%%asset b\nb = f(a)"]] * 2,
        ["a", "b"],
        reused=["a", "b"],
    ),
    Case(
        "parameters_assigned_again",
        [
            [
                "n = 3\nname = 'x'",
                "%%asset a\na = name * n",
                "n = 2",
                "%%asset b\nb = a * n",
                "n, name = 1, 'y'",
                "%%asset c\nc = b + name * n",
            ]
        ]
        * 2,
        ["a", "b", "c"],
        reused=["a", "b", "c"],
    ),
    Case(
        "variable_of_an_asset_assigned_by_another",
        [
            [
                "%%asset a\ntmp = [1]\na = len(tmp)",
                "%%asset b\ntmp = [1, 2]\nb = len(tmp) + a",
                "n = tmp",
                "%%asset c\nc = sum(tmp)",
            ]
        ]
        * 2,
        ["n", "c"],
        reused=["a", "b", "c"],
    ),
    Case(
        "loop_variable_in_many_assets",
        [
            [
                "i = 100",
                "%%asset a\na = 0\nfor i in range(3):\n    a += i",
                "%%asset b\nb = [0]\nfor i in range(4):\n    b.append(i)",
                "n = i",
            ]
        ]
        * 2,
        ["a", "b", "n"],
        reused=["a", "b"],
    ),
    Case(
        "plain_cell_changes_a_variable",
        [
            [
                "import pandas as pd",
                "%%asset df\ndf = pd.DataFrame({'v': [1.0, None, 3.0]})",
                "df['w'] = df.v.fillna(0) * 2",
                "%%asset total\ntotal = float(df.w.sum())",
                "columns = list(df.columns)",
            ]
        ]
        * 2,
        ["total", "columns"],
        reused=["df", "total"],
    ),
    Case(
        "plain_cell_rebinds_a_variable",
        [
            [
                "import pandas as pd",
                "%%asset df\ndf = pd.DataFrame({'v': [1.0, None, 3.0]})",
                f"df = df.dropna() * {k}",
                "%%asset total\ntotal = float(df.v.sum())",
            ]
            for k in (1, 2, 2)
        ],
        ["total", "len(df)"],
        reused=["df", "total"],
    ),
    Case(
        "plain_cells_clean_in_steps",
        [
            [
                "import pandas as pd",
                f"%%asset df\ndf = pd.DataFrame({{'Name': ['a', 'b', None], 'V': [1.0, 2.0, {k}]}})",
                "df.columns = df.columns.str.lower()",
                "df = df.dropna()",
                "df['v2'] = df['v'] ** 2",
                "%%asset stats\nstats = df.describe().loc['mean'].to_dict()",
                "df = df.rename(columns={'v2': 'w'})",
                "%%asset last\nlast = df.w.tolist()",
            ]
            for k in (3.0, 4.0, 4.0)
        ],
        ["stats", "last", "list(df)"],
        reused=["df", "stats", "last"],
    ),
    Case(
        "plain_cell_copies_a_variable",
        [["%%asset a\na = [1, 2]", "a = list(a)", "%%asset b\nb = sum(a)"]] * 2,
        ["a", "b"],
        reused=["a", "b"],
    ),
    Case(
        "variable_made_from_an_asset",
        [
            [
                "import pandas as pd",
                f"%%asset df\ndf = pd.DataFrame({{'a': [1, 2], 'b': [3, {k}]}})",
                "cols = ['b']\nX = df[cols]",
                "%%asset total\ntotal = int(X.b.sum())",
                "n = len(X)",
            ]
            for k in (4, 5, 5)
        ],
        ["total", "n"],
        reused=["df", "total"],
    ),
    Case(
        "change_by_a_method_of_the_users",
        [
            [
                "class Bag:\n    def __init__(self):\n        self.items = []\n    def add(self, x):\n        self.items.append(x)",
                "%%asset bag\nbag = Bag()\nbag.add(1)",
                "bag.add(2)",
                "%%asset n\nn = len(bag.items)",
                "bag.add(3)",
                "%%asset m\nm = sum(bag.items) + n",
            ]
        ]
        * 2,
        ["n", "m", "bag.items"],
        reused=["bag", "n", "m"],
    ),
    Case(
        "change_through_an_alias",
        [["%%asset a\na = {'x': [1]}", "inner = a['x']", "inner.append(5)", "%%asset b\nb = sum(a['x'])"]] * 2,
        ["a", "b", "inner is a['x']"],
        reused=["a", "b"],
    ),
    # Key and variable.
    Case(
        "same_variable_three_assets",
        [
            [
                "%%asset numbers -> x\nx = [3, 1, 2]",
                "%%asset ordered -> x\nx = sorted(x)",
                f"%%asset top -> x\nx = x[-1] + {k}",
                "y = x",
            ]
            for k in (0, 1, 1)
        ],
        ["y"],
        reused=["numbers", "ordered", "top"],
    ),
    Case(
        "chain_of_frames",
        [
            [
                "import pandas as pd",
                f"%%asset raw -> df\ndf = pd.DataFrame({{'v': [1.0, None, {k}]}})",
                "%%asset clean -> df\ndf = df.dropna()",
                "df['w'] = df.v * 2",
                "%%asset feats -> df\ndf = df.assign(z=df.w + 1)",
                "%%asset total\ntotal = float(df.z.sum())",
                "n = list(df)",
            ]
            for k in (3.0, 4.0, 4.0)
        ],
        ["total", "n", "len(df)"],
        reused=["raw", "clean", "feats", "total"],
    ),
    Case(
        "chain_edited_in_the_middle",
        [
            [
                "%%asset one -> x\nx = [3, 1, 2]",
                f"%%asset two -> x\nx = [v * {k} for v in x]",
                "%%asset three -> x\nx = sum(x)",
            ]
            for k in (1, 2)
        ],
        ["x"],
        reused=["one"],
    ),
    Case(
        "variable_of_a_key_changed_by_a_plain_cell",
        [
            [
                "%%asset numbers -> x\nx = [3, 1]",
                "x.append(2)",
                "%%asset ordered -> x\nx = sorted(x)",
                "x = x[1:]",
                "%%asset total\ntotal = sum(x)",
            ]
        ]
        * 2,
        ["x", "total"],
        reused=["numbers", "ordered", "total"],
    ),
    # Values that cannot be stored.
    Case(
        "unstorable_value_is_bound",
        [
            [
                "import threading",
                "class Trainer:\n    def __init__(self):\n        self.n, self.parts = 3, {'pool': [threading.Lock()]}",
                "%%asset trainer\ntrainer = Trainer()",
                "n = trainer.n",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "unstorable_value_used_by_assets",
        [
            [
                "import threading",
                "class Trainer:\n    def __init__(self):\n        self.lock, self.n = threading.Lock(), 0\n    def train(self):\n        with self.lock:\n            self.n += 1\n        return self.n",
                "%%asset trainer\ntrainer = Trainer()",
                "%%asset a\na = trainer.train()",
                "%%asset b\nb = trainer.train() + a",
                "c = trainer.n",
            ]
        ]
        * 2,
        ["a", "b", "c"],
    ),
    Case(
        "generator_as_a_value",
        [
            [
                "%%asset gen\ngen = (i * i for i in range(5))",
                "%%asset a\na = next(gen)",
                "%%asset b\nb = next(gen) + a",
                "c = next(gen)",
            ]
        ]
        * 2,
        ["a", "b", "c"],
    ),
    Case(
        "connection_as_a_value",
        [
            [
                "import sqlite3",
                "%%asset con\ncon = sqlite3.connect(':memory:')\ncon.execute('create table t (v)')\ncon.execute('insert into t values (3)')",
                "%%asset total\ntotal = con.execute('select sum(v) from t').fetchone()[0]",
                "con.execute('insert into t values (4)')",
                "%%asset after\nafter = con.execute('select sum(v) from t').fetchone()[0]",
            ]
        ]
        * 2,
        ["total", "after"],
    ),
    Case(
        "executor_as_a_value",
        [
            [
                "from concurrent.futures import ThreadPoolExecutor",
                "%%asset pool\npool = ThreadPoolExecutor(2)",
                "%%asset squares\nsquares = list(pool.map(lambda x: x * x, range(3)))",
                "n = list(pool.map(str, [1]))",
            ]
        ]
        * 2,
        ["squares", "n"],
    ),
    Case(
        "unstorable_variable_inside",
        [
            [
                "import threading",
                "%%asset n\nlock = threading.Lock()\nwith lock:\n    n = 3",
                "with lock:\n    m = n + 1",
                "%%asset k\nwith lock:\n    k = n * 2",
            ]
        ]
        * 2,
        ["m", "k"],
    ),
    Case(
        "lazy_values",
        [
            ["%%asset pairs\npairs = zip([1, 2], 'ab')", "c = list(pairs)"],
            ["%%asset pairs\npairs = zip([1, 2], 'ab')", "c = list(pairs)"],
        ],
        ["c"],
    ),
    Case(
        "module_as_a_value",
        [["%%asset m\nimport math as m", "n = m.sqrt(9)", "%%asset k\nk = m.floor(2.5)"]] * 2,
        ["n", "k"],
    ),
    # Failures and interrupts.
    Case(
        "failure_in_the_middle",
        [["%%asset a\nx = [1, 2]\nlog = len(x)\na = x[9]", "n = x, log"]] * 2,
        ["n", "'a' in globals()"],
        fails=True,
    ),
    Case(
        "failure_after_a_change",
        [["config = {'v': 1}", "%%asset a\nconfig['v'] = 2\nraise ValueError('bad')\na = 1", "n = dict(config)"]] * 2,
        ["n"],
        fails=True,
    ),
    Case("failure_after_it_was_assigned", [["%%asset a\na = [1]\n1 / 0", "a.append(2)"]] * 2, ["a"], fails=True),
    Case(
        "failure_then_mended",
        [["%%asset a\nx = 5\na = x / 0", "n = x"], ["%%asset a\nx = 5\na = x / 1", "n = x"]],
        ["n", "x"],
        fails=True,
    ),
    Case(
        "interrupted_in_the_middle",
        [
            [
                "import os, signal, time",
                "%%asset a\nx = 3\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\na = 1",
                "n = x",
            ]
        ]
        * 2,
        ["n", "'a' in globals()"],
        fails=True,
    ),
    Case(
        "imports_before_a_failure",
        [["%%asset a\nimport math\ndef f(x):\n    return math.floor(x)\na = f(None)", "n = f(2.5)"]] * 2,
        ["n"],
        fails=True,
    ),
    # Nothing of importance was edited.
    Case("nothing_edited", [["K = 3", "%%asset a\na = K * 2", "%%asset b\nb = a + 1"]] * 2, ["a", "b"], reused=["a", "b"]),
    Case(
        "comments_and_layout_edited",
        [
            ["K = 3", "%%asset a\na = K * 2", "%%asset b\nb = a + 1"],
            ["K = 3  # three", "%%asset a\n# twice\n\na = (K *\n     2)", "%%asset b\nb = a + 1  # more"],
        ],
        ["a", "b"],
        reused=["a", "b"],
    ),
    Case(
        "helper_edited",
        [[f"def f(x):\n    return x + {k}", "%%asset a\na = [f(i) for i in range(3)]", "%%asset b\nb = sum(a)"] for k in (1, 2)],
        ["a", "b"],
    ),
    Case(
        "cell_of_imports",
        [["%%asset start\nimport math\nfrom collections import deque", "n = math.floor(2.5), len(deque([1]))"]] * 2,
        ["n"],
        reused=["start"],
    ),
    Case(
        "cell_of_definitions",
        [["%%asset start\ndef f(x):\n    return x + 1\nclass P:\n    k = 3", "n = f(P.k)"]] * 2,
        ["n"],
        reused=["start"],
    ),
    Case(
        "deleted_by_a_later_cell",
        [["n = 3", "%%asset a\na = n + 1", "del n", "%%asset b\nb = a * 2"]] * 2,
        ["a", "b", "'n' in globals()"],
        reused=["a", "b"],
    ),
    Case(
        "unstored_beside_a_variable_that_a_plain_cell_changed",
        [
            [
                "%%asset a\na = (x * 7 for x in range(3))\nd = {'k': 5}",
                change,
                "%%asset b\nb = (next(a), next(a), d['k'])",
            ]
            for change in ("pass", "d['k'] += 1", "d['k'] += 1")
        ],
        ["b", "d"],
    ),
    Case(
        "unstored_beside_a_number_that_is_bound_again",
        [["n = 2", "%%asset a\nn += 1\na = (x * n for x in (1, 2))", "%%asset b\nb = next(a) + next(a)"]] * 3,
        ["b", "n"],
        reused=["a"],
    ),
    Case(
        "unstored_beside_a_number_that_a_helper_binds_again",
        [
            [
                "import pandas as pd\nn = 2\nf = pd.DataFrame({'v': [1, 2, 3]})",
                "%%asset a\ndef more():\n    global n\n    n = n + 1\nmore()\nf = f[1:]\na = (x * n for x in f.v)",
                "m = len(f)",
                "%%asset b\nb = int(next(a))",
            ]
        ]
        * 3,
        ["b", "n", "m"],
    ),
    Case(
        "bound_again_beside_an_output_that_holds_it",
        [
            [
                "l = [-1, 1]\nm = [2]",
                "%%multi_asset a b\nl = [*l, 10]\na = {'sub': l, 'n': sum(l)}\nb = 7",
                "%%asset c\nm = [*m, 3]\n{'sub': m}",
                "l.append(5)\nm.append(5)",
            ]
        ]
        * 2,
        ["l", "a", "a['sub'] is l", "m"],
        reused=["a", "b", "c"],
    ),
    Case(
        "plain_cell_that_binds_the_very_number_of_an_asset",
        [
            [
                "import random\nrandom.seed(7)",
                "n = random.randrange(100)",
                "%%asset a\na = [n, n + 1]",
                "%%asset b -> n\nrandom.seed(7)\nn = random.randrange(100)",
                "n = random.randrange(1, 2)",
                "n = int(str(a[0]))",
                "%%asset c\nc = n + 1",
            ]
        ]
        * 2,
        ["n", "a", "c"],
        reused=["a", "b", "c"],
    ),
    Case(
        "made_again_before_a_cell_that_changes_what_it_read",
        [
            [
                "import pandas as pd\nf = pd.DataFrame({'v': [1, 2, 9]})\nn = 8",
                "%%asset a\ng = f\na = (x * 7 for x in range(3))\nn = len(g.query('v > @n'))",
                "f['w'] = f.v * 2",
                "%%asset b\nb = (next(a), n)",
            ]
        ]
        * 3,
        ["n", "b"],
    ),
    # Code in the value of a cell that reads variables of the same cell.
    after(
        "class_that_reads_a_constant_of_its_cell",
        "ALPHA = 0.1\nclass Ridge:\n    def rate(self):\n        return ALPHA\nstart = Ridge()",
        "same = isinstance(start, Ridge), start.rate()\nALPHA = 0.5\nlater = start.rate()",
        ["same", "later"],
        runs=3,
    ),
    after(
        "functions_that_read_variables_of_their_cell",
        "seen = []\nfactor = 2\ndef scaled(x):\n    seen.append(x)\n    return x * factor\nstart = {'f': scaled, 'g': lambda x: x + factor}",
        "factor = 10\nvalues = start['f'](1), start['g'](1), start['f'] is scaled\nlength = len(seen)",
        ["values", "length"],
        runs=3,
    ),
    Case(
        "object_in_a_list_whose_class_reads_a_constant_of_its_cell",
        [
            [
                "made = []",
                "%%asset model\nALPHA = [1]\nclass Net:\n    def size(self):\n        return len(ALPHA)\nmodel = Net()\nmade.append(model)",
                "same = isinstance(model, Net), made[0] is model",
                "ALPHA.append(2)\nsize = model.size()",
            ]
        ]
        * 3,
        ["same", "size"],
    ),
    after(
        "handlers_of_a_single_dispatch_function",
        "from functools import singledispatch\n@singledispatch\ndef kind(x):\n    return 'any'\n@kind.register\ndef _(x: int):\n    return 'int'\n"
        "@kind.register\ndef _(x: list):\n    return 'list'\nstart = 1",
        "kinds = kind(1), kind([]), kind('')",
        ["kinds"],
    ),
    # Pictures.
    Case(
        "figures_shown_one_after_the_other",
        [
            [
                f"import matplotlib\nmatplotlib.use('module://matplotlib_inline.backend_inline')\n{PLOT}",
                "%%asset counts\ncounts = []\nfor n in range(3):\n    plt.hist([1, 2, n])\n    counts.append((len(plt.gca().patches), plt.get_fignums()))\n    plt.show()",
            ]
        ]
        * 2,
        ["counts", "plt.get_fignums()"],
        reused=["counts"],
    ),
    # Local modules whose import depends on earlier statements of the cell.
    Case(
        "environment_then_import",
        [
            [
                "import os",
                "%%asset s\nos.environ['MODE'] = 'a'\nfrom mymod import f\ns = f()",
            ],
            [
                "import os",
                "%%asset s\nos.environ['MODE'] = 'a'\nfrom mymod import f\ns = f()",
            ],
            [
                "import os",
                "%%asset s\nos.environ['MODE'] = 'b'\nfrom mymod import f\ns = f()",
            ],
            [
                "import os",
                "%%asset s\nos.environ['MODE'] = 'b'\nfrom mymod import f\ns = f()",
            ],
        ],
        ["s"],
        files={
            "mymod.py": "import os, random\nMODE = os.environ.get('MODE', 'none')\nR = random.random()\ndef f():\n    return MODE\n"
        },
    ),
    Case(
        "seed_then_import",
        [
            [
                "import random",
                "%%asset s\nrandom.seed(1)\nimport mymod\ns = mymod.R, random.random()",
                "n=random.random()",
            ],
            [
                "import random",
                "%%asset s\nrandom.seed(1)\nimport mymod\ns = mymod.R, random.random()",
                "n=random.random()",
            ],
            [
                "import random",
                "%%asset s\nrandom.seed(2)\nimport mymod\ns = mymod.R, random.random()",
                "n=random.random()",
            ],
            [
                "import random",
                "%%asset s\nrandom.seed(2)\nimport mymod\ns = mymod.R, random.random()",
                "n=random.random()",
            ],
        ],
        ["s", "n"],
        files={
            "mymod.py": "import os, random\nMODE = os.environ.get('MODE', 'none')\nR = random.random()\ndef f():\n    return MODE\n"
        },
    ),
    Case(
        "search_path_then_import",
        [
            [
                "%%asset s\nimport sys\nsys.path.insert(0, 'lib')\nimport own\ns = own.f() + 1",
                "n = own.f()\nimport own2\nm=own2.X",
            ],
            [
                "%%asset s\nimport sys\nsys.path.insert(0, 'lib')\nimport own\ns = own.f() + 1",
                "n = own.f()\nimport own2\nm=own2.X",
            ],
            [
                "%%asset s\nimport sys\nsys.path.insert(0, 'lib')\nimport own\ns = own.f() + 2",
                "n = own.f()\nimport own2\nm=own2.X",
            ],
            [
                "%%asset s\nimport sys\nsys.path.insert(0, 'lib')\nimport own\ns = own.f() + 2",
                "n = own.f()\nimport own2\nm=own2.X",
            ],
        ],
        ["s", "n", "m"],
        files={"lib/own.py": "def f():\n    return 5\n", "lib/own2.py": "X=3\n"},
    ),
    Case(
        "search_path_and_import_with_edits",
        [
            [
                "%%asset s\nimport sys\nsys.path.insert(0, 'lib')\nimport own\ns = own.f()",
                "n = own.f()",
                "%%asset t\nt = own.f()",
            ]
        ]
        * 5,
        ["s", "n", "t"],
        reused=("s", "t"),
        files=[
            {"lib/own.py": "import other\ndef f():\n    return 1, other.X\n", "lib/other.py": "X = 1\n"},
            {"lib/own.py": "import other\ndef f():\n    return 1, other.X\n", "lib/other.py": "X = 1\n"},
            {"lib/own.py": "import other\ndef f():\n    return 2, other.X\n", "lib/other.py": "X = 1\n"},
            {"lib/own.py": "import other\ndef f():\n    return 2, other.X\n", "lib/other.py": "X = 3\n"},
            {"lib/own.py": "import other\ndef f():\n    return 2, other.X\n", "lib/other.py": "X = 3\n"},
        ],
    ),
    Case(
        "environment_then_import_with_edits",
        [
            [
                "%%asset s\nimport os\nos.environ['MODE'] = 'a'\nimport mymod\ns = mymod.f()",
                "n = mymod.f()",
                "%%asset t\nt = mymod.f()",
            ]
        ]
        * 4,
        ["s", "n", "t"],
        reused=("s", "t"),
        files=[
            {"mymod.py": "import os\nMODE = os.environ.get('MODE', 'none')\ndef f():\n    return MODE, 1\n"},
            {"mymod.py": "import os\nMODE = os.environ.get('MODE', 'none')\ndef f():\n    return MODE, 1\n"},
            {"mymod.py": "import os\nMODE = os.environ.get('MODE', 'none')\ndef f():\n    return MODE, 2\n"},
            {"mymod.py": "import os\nMODE = os.environ.get('MODE', 'none')\ndef f():\n    return MODE, 2\n"},
        ],
    ),
    Case(
        "environment_of_an_import_that_is_made_again",
        [
            [
                "%%asset s\nimport os\nos.environ['MODE'] = 'a'\nimport mymod\ns = 1",
                "n = mymod.f()",
            ]
        ]
        * 3,
        ["n"],
        reused=("s",),
        files={"mymod.py": "import os\nMODE = os.environ.get('MODE', 'none')\ndef f():\n    return MODE, 1\n"},
    ),
    Case(
        "environment_then_import_in_one_kernel",
        [
            [
                "%%asset s\nimport os\nos.environ['MODE'] = 'a'\nimport mymod\ns = mymod.f()",
                "n = mymod.f()",
                "%%asset t\nt = mymod.f()",
                "%%asset s\nimport os\nos.environ['MODE'] = 'a'\nimport mymod\ns = mymod.f()",
                "n = mymod.f()",
                "%%asset t\nt = mymod.f()",
                "%%asset s\nimport os\nos.environ['MODE'] = 'a'\nimport mymod\ns = mymod.f()",
                "n = mymod.f()",
                "%%asset t\nt = mymod.f()",
            ]
        ]
        * 3,
        ["s", "n", "t"],
        reused=("s", "t"),
        files={"mymod.py": "import os\nMODE = os.environ.get('MODE', 'none')\ndef f():\n    return MODE, 1\n"},
    ),
    Case(
        "folder_then_import",
        [
            [
                "%%asset s\nimport os\nos.chdir('lib')\nimport own\ns = own.f()",
                "n = own.f(), os.path.basename(os.getcwd())",
            ]
        ]
        * 3,
        ["s", "n"],
        reused=("s",),
        files={"lib/own.py": "import other\ndef f():\n    return 1, other.X\n", "lib/other.py": "X = 1\n"},
    ),
    Case(
        "import_after_other_statements",
        [
            [
                "%%asset s\nx = list(range(3))\nfrom own import f\ns = f(), x",
            ]
        ]
        * 4,
        ["s"],
        reused=("s",),
        files=[
            {"own.py": "def f():\n    return 1\n\ndef g(): return 1"},
            {"own.py": "def f():\n    return 1\n\ndef g(): return 2"},
            {"own.py": "def f():\n    return 2\n\ndef g(): return 2"},
            {"own.py": "def f():\n    return 2\n\ndef g(): return 2"},
        ],
    ),
    Case(
        "missing_import_after_other_statements",
        [
            [
                "%%asset s\nx = 1\ntry:\n    import not_there as xp\nexcept ImportError:\n    import math as xp\ns = xp.sqrt(4)",
            ]
        ]
        * 2,
        ["s"],
        reused=("s",),
    ),
    Case(
        "environment_then_import_of_a_package",
        [
            [
                "%%asset s\nimport os\nos.environ['MODE'] = 'a'\nfrom pkg import sub\ns = sub.f()",
                "n = sub.f()",
            ]
        ]
        * 3,
        ["s", "n"],
        reused=("s",),
        files={
            "pkg/__init__.py": "",
            "pkg/sub.py": "import os\nMODE = os.environ.get('MODE', 'none')\ndef f():\n    return MODE, 1\n",
        },
    ),
    Case(
        "module_that_the_cell_writes",
        [
            [
                "%%asset s\nopen('gen.py','w').write('def f():\\n    return 3\\n')\nimport gen\ns = gen.f()",
                "n = gen.f()",
            ]
        ]
        * 3,
        ["s", "n"],
        reused=("s",),
    ),
    Case(
        "environment_then_import_in_a_function",
        [
            [
                "%%asset s\nimport os\nos.environ['MODE'] = 'a'\ndef g():\n    import mymod\n    return mymod.f()\ns = g()",
                "n = g()",
            ]
        ]
        * 3,
        ["s", "n"],
        reused=("s",),
        files={"mymod.py": "import os\nMODE = os.environ.get('MODE', 'none')\ndef f():\n    return MODE, 1\n"},
    ),
    # Functions of a cell that a registry of the same cell holds.
    Case(
        "registry_and_functions_in_one_cell",
        [
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef one(x):\n    return 'int'\n@reg\ndef two(x):\n    return 'list'\nsetup = 1",
                "r = [f(1) for f in R.values()]",
            ]
        ]
        * 2,
        ["r"],
        reused=("setup",),
    ),
    Case(
        "registry_with_one_name_twice",
        [
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[len(R)] = f\n    return f\n@reg\ndef impl(x):\n    return 'int'\n@reg\ndef impl(x):\n    return 'list'\nsetup = 1",
                "r = [f(1) for f in R.values()]",
            ]
        ]
        * 2,
        ["r"],
        reused=("setup",),
    ),
    Case(
        "list_of_functions_named_underscore",
        [
            [
                "%%asset setup\nR = []\ndef _(x):\n    return 'int'\nR.append(_)\ndef _(x):\n    return 'list'\nR.append(_)\nsetup = 1",
                "r = [f(1) for f in R]",
            ]
        ]
        * 2,
        ["r"],
    ),
    Case(
        "functions_defined_in_a_loop",
        [
            [
                "%%asset setup\nR = []\nfor i in range(3):\n    def f(x, i=i):\n        return x * i\n    R.append(f)\nsetup = 1",
                "r = [f(2) for f in R], f(3)",
            ]
        ]
        * 2,
        ["r"],
        reused=("setup",),
    ),
    # Functions that are stored with a registry use the notebook's variables.
    Case(
        "registered_functions_that_read_the_registry",
        [
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef one(x):\n    return len(R), x\n@reg\ndef two(x):\n    return R['one'](x)\nsetup = 1",
                "R['three'] = len",
                "r = one(1), two(2), R['one'] is one, list(R)",
            ]
        ]
        * 2,
        ["r"],
        reused=("setup",),
    ),
    Case(
        "registered_function_and_a_later_variable",
        [
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\nSCALE = 2\n@reg\ndef one(x):\n    return x * SCALE\nsetup = 1",
                "SCALE = 5\nr = one(1), R['one'](1)",
            ]
        ]
        * 2,
        ["r"],
        reused=("setup",),
    ),
    Case(
        "registered_function_with_edits",
        [
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef one(x):\n    return x * 2\nsetup = 1",
                "%%asset t\nt = R['one'](1), one(1)",
            ],
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef one(x):\n    return x * 2\nsetup = 1",
                "%%asset t\nt = R['one'](1), one(1)",
            ],
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef one(x):\n    return x * 3\nsetup = 1",
                "%%asset t\nt = R['one'](1), one(1)",
            ],
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef one(x):\n    return x * 3\nsetup = 1",
                "%%asset t\nt = R['one'](1), one(1)",
            ],
        ],
        ["t"],
        reused=("setup", "t"),
    ),
    Case(
        "registered_function_that_calls_a_later_helper",
        [
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef one(x):\n    return x * 2\n@reg\ndef two(x):\n    return helper(x)\nsetup = 1",
                "def helper(x):\n    return x + 2",
                "%%asset t\nt = R['two'](1), two(1)",
            ],
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef one(x):\n    return x * 2\n@reg\ndef two(x):\n    return helper(x)\nsetup = 1",
                "def helper(x):\n    return x + 2",
                "%%asset t\nt = R['two'](1), two(1)",
            ],
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef one(x):\n    return x * 2\n@reg\ndef two(x):\n    return helper(x)\nsetup = 1",
                "def helper(x):\n    return x + 3",
                "%%asset t\nt = R['two'](1), two(1)",
            ],
            [
                "%%asset setup\nR = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f\n@reg\ndef one(x):\n    return x * 2\n@reg\ndef two(x):\n    return helper(x)\nsetup = 1",
                "def helper(x):\n    return x + 3",
                "%%asset t\nt = R['two'](1), two(1)",
            ],
        ],
        ["t"],
        reused=("setup", "t"),
    ),
    Case(
        "classes_in_a_registry",
        [
            [
                "%%asset setup\nR = []\ndef reg(c):\n    R.append(c)\n    return c\n@reg\nclass A:\n    v = 1\n@reg\nclass B(A):\n    v = 2\nsetup = 1",
                "r = [c().v for c in R], R[0] is A, issubclass(B, A), len(R)",
            ]
        ]
        * 2,
        ["r"],
    ),
    Case(
        "handlers_by_event",
        [
            [
                "%%asset setup\nhandlers = {}\ndef on(event):\n    def deco(f):\n        handlers.setdefault(event, []).append(f)\n        return f\n    return deco\n@on('a')\ndef f1(x):\n    return x + 1\n@on('a')\ndef f2(x):\n    return x + 2\nsetup = 1",
                "r = [f(1) for f in handlers['a']], handlers['a'][0] is f1",
            ]
        ]
        * 2,
        ["r"],
        reused=("setup",),
    ),
    Case(
        "decorator_that_counts_calls",
        [
            [
                "%%asset setup\nCALLS = []\ndef log(f):\n    def inner(*a):\n        CALLS.append(f.__name__)\n        return f(*a)\n    return inner\n@log\ndef one(x):\n    return x\nsetup = one(1)",
                "r = one(2), CALLS",
            ]
        ]
        * 2,
        ["r"],
        reused=("setup",),
    ),
    # Variables that are not stored and share objects with others.
    Case(
        "dropped_alias_beside_random_numbers",
        [
            [
                "import random\nrandom.seed(5)",
                "d = {'a': 1, 'sub': [2]}",
                "%%asset a2 -> n --drop e\ne = d\nn = random.sample(range(99), 2)[0]",
                "r = d['sub'] is e['sub'], n, random.random()",
                "import random\nrandom.seed(5)",
                "d = {'a': 1, 'sub': [2]}",
                "%%asset a2 -> n --drop e\ne = d\nn = random.sample(range(99), 2)[0]",
                "r = d['sub'] is e['sub'], n, random.random()",
            ]
        ]
        * 1,
        ["r"],
    ),
    Case(
        "dropped_part_of_the_value",
        [
            [
                "%%asset a1 --drop l_2\nl_2 = [x + 3 for x in range(1)]\na1 = {'a': 7, 'sub': l_2}",
                "r = l_2 is a1['sub'], l_2",
            ]
        ]
        * 2,
        ["r"],
    ),
    Case(
        "dropped_part_of_a_changed_value",
        [
            [
                "%%asset a1 --drop l_2\nl_2 = [x + 3 for x in range(1)]\na1 = {'a': 7, 'sub': l_2}",
                "a1['sub'].append(9)\nb = a1",
                "r = l_2 is a1['sub'], l_2, b is a1",
            ]
        ]
        * 2,
        ["r"],
    ),
    Case(
        "dropped_variable_that_text_reads",
        [
            [
                "import pandas as pd\nn = 3\nf = pd.DataFrame({'v': [1, 5, 9]})",
                "%%asset a2 --drop n\na2 = int(pd.eval('n + 1'))\nn = len(f.query('v > @n'))",
                "r = n, a2",
            ]
        ]
        * 3,
        ["r"],
    ),
    Case(
        "dropped_alias_of_a_variable_bound_again",
        [
            [
                "d = {'a': 1, 'sub': [2]}",
                "%%asset a2 -> n --drop e\ne = d\nn = 2",
                "d = {'a': 1, 'sub': [2]}",
                "%%asset a2 -> n --drop e\ne = d\nn = 2",
                "r = d['sub'] is e['sub'], n",
            ]
        ]
        * 1,
        ["r"],
    ),
    Case(
        "dropped_alias_in_an_edited_cell",
        [
            [
                "d = {'a': 1, 'sub': [2]}",
                "%%asset a2 -> n --drop e\ne = d\nn = 5",
                "%%asset a2 -> n --drop e\ne = d\nn = 2",
                "d = {'a': 1, 'sub': [2]}",
                "%%asset a2 -> n --drop e\ne = d\nn = 2",
                "r = d['sub'] is e['sub'], n",
            ]
        ]
        * 1,
        ["r"],
    ),
    # Values that contain functions.
    Case(
        "dict_of_functions_that_use_it",
        [
            [
                "R=0.1",
                "%%asset ops\nops={'add':lambda a,b:a+b+R,'sub':lambda a,b: ops['add'](a,-b)-1}\ndef run(o,*a): return ops[o](*a)",
                "R=1\nn=run('add',1,2), run('sub',1,2)",
                "%%asset t\nt=run('sub',5,1)",
                "ops['mul']=lambda a,b:a*b\n",
                "%%asset u\nu=run('mul',2,3), sorted(ops)",
            ],
            [
                "R=0.1",
                "%%asset ops\nops={'add':lambda a,b:a+b+R,'sub':lambda a,b: ops['add'](a,-b)-1}\ndef run(o,*a): return ops[o](*a)",
                "R=1\nn=run('add',1,2), run('sub',1,2)",
                "%%asset t\nt=run('sub',5,1)",
                "ops['mul']=lambda a,b:a*b\n",
                "%%asset u\nu=run('mul',2,3), sorted(ops)",
            ],
            [
                "R=0.1",
                "%%asset ops\nops={'add':lambda a,b:a+b+R,'sub':lambda a,b: ops['add'](a,-b)-2}\ndef run(o,*a): return ops[o](*a)",
                "R=1\nn=run('add',1,2), run('sub',1,2)",
                "%%asset t\nt=run('sub',5,1)",
                "ops['mul']=lambda a,b:a*b\n",
                "%%asset u\nu=run('mul',2,3), sorted(ops)",
            ],
            [
                "R=0.1",
                "%%asset ops\nops={'add':lambda a,b:a+b+R,'sub':lambda a,b: ops['add'](a,-b)-2}\ndef run(o,*a): return ops[o](*a)",
                "R=5\nn=run('add',1,2), run('sub',1,2)",
                "%%asset t\nt=run('sub',5,1)",
                "ops['mul']=lambda a,b:a*b\n",
                "%%asset u\nu=run('mul',2,3), sorted(ops)",
            ],
            [
                "R=0.1",
                "%%asset ops\nops={'add':lambda a,b:a+b+R,'sub':lambda a,b: ops['add'](a,-b)-2}\ndef run(o,*a): return ops[o](*a)",
                "R=5\nn=run('add',1,2), run('sub',1,2)",
                "%%asset t\nt=run('sub',5,1)",
                "ops['mul']=lambda a,b:a*b\n",
                "%%asset u\nu=run('mul',2,3), sorted(ops)",
            ],
        ],
        ["n", "t", "u"],
        reused=("ops", "t", "u"),
    ),
    Case(
        "registered_functions_with_defaults",
        [
            [
                "K=[1]",
                "%%asset s\nREG=[]\ndef reg(f): REG.append(f); return f\n@reg\ndef f(x=K): return x\n@reg\ndef g(x=len(K)): return x\ns=1",
                "K.append(1); n=[h() for h in REG], REG[0]() is K, f() is K",
            ],
            [
                "K=[1]",
                "%%asset s\nREG=[]\ndef reg(f): REG.append(f); return f\n@reg\ndef f(x=K): return x\n@reg\ndef g(x=len(K)): return x\ns=1",
                "K.append(1); n=[h() for h in REG], REG[0]() is K, f() is K",
            ],
            [
                "K=[1]",
                "%%asset s\nREG=[]\ndef reg(f): REG.append(f); return f\n@reg\ndef f(x=K): return x\n@reg\ndef g(x=len(K)): return x\ns=1",
                "K.append(2); n=[h() for h in REG], REG[0]() is K, f() is K",
            ],
            [
                "K=[1]",
                "%%asset s\nREG=[]\ndef reg(f): REG.append(f); return f\n@reg\ndef f(x=K): return x\n@reg\ndef g(x=len(K)): return x\ns=1",
                "K.append(2); n=[h() for h in REG], REG[0]() is K, f() is K",
            ],
        ],
        ["n"],
    ),
]
