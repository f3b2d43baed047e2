"""Objects of the notebook that an asset cell changes."""

from oracle import Case


def changed(name, setup, change, watch, later="", *, runs=2, reused=True):
    """Objects are set up in a plain cell, changed by an asset cell, and read by a plain and by an asset cell."""
    cells = [setup, f"%%asset step\n{change}\nstep = 'done'", *([later] if later else [])]
    return Case(name, [cells] * runs, watch, reused=["step"] if reused else ())


CHANGED_IN_PLACE = {
    "text_buffer": (
        "import io\nout = io.StringIO()\nprint('s', file=out)",
        "print('x', file=out)\na = 1",
        "out.getvalue(), out.tell()",
        "print('y', file=out)",
    ),
    "byte_buffer": (
        "import io\nout = io.BytesIO(b'abc')",
        "out.seek(0, 2)\nout.write(b'x')\na = 1",
        "out.getvalue(), out.tell()",
        "out.write(b'y')",
    ),
    "log_in_a_buffer": (
        "import logging, io\nbuffer = io.StringIO()\nlog = logging.getLogger('mine')\nlog.handlers[:] = [logging.StreamHandler(buffer)]\nlog.setLevel('INFO')\nlog.propagate = False",
        "log.info('hello')\nlog.setLevel('DEBUG')\na = 1",
        "buffer.getvalue(), log.level",
        "log.debug('late')",
    ),
    "context_variable": (
        "import contextvars\nv = contextvars.ContextVar('v', default=0)\nv.set(1)",
        "v.set(5)\na = v.get()",
        "v.get()",
        "pass",
    ),
    "dict_behind_a_read_only_view": (
        "from types import MappingProxyType\nd = {'a': 1}\np = MappingProxyType(d)",
        "d['b'] = 2\na = dict(p)",
        "dict(p), d",
        "d['c'] = 3",
    ),
    "dict_with_attributes": (
        "class Config(dict):\n    __getattr__ = dict.__getitem__\n    __setattr__ = dict.__setitem__\nconfig = Config(lr=1)",
        "config.lr = .5\nconfig.new = [1]\na = config",
        "a is config, config.lr, config, type(config) is Config",
        "config.new.append(2)",
    ),
    "deque_and_heap": (
        "from collections import deque\nimport heapq\nd = deque([1, 2, 3], maxlen=3)\nh = [3, 1]",
        "d.append(4)\nd.rotate(1)\nheapq.heappush(h, 0)\na = heapq.heappop(h)",
        "list(d), d.maxlen, h",
        "d.append(9)",
    ),
}

CASES = [
    *[
        Case(
            f"{kind}_changed_in_place" + "_twice" * (times - 1),
            [
                [
                    ("c0", first),
                    ("c1", f"%%asset a\n{asset}"),
                    ("c2", later),
                    ("c3", f"%%asset b\nb = [{shown}]"),
                    ("c4", f"n = [{shown}]"),
                ]
                * times
            ]
            * 2,
            ["a", "b", "n"],
            reused=["a"] if times == 1 else [],
        )
        for kind, (first, asset, shown, later) in CHANGED_IN_PLACE.items()
        for times in (1, 2)
    ],
    Case(
        "parsed_document_changed",
        [
            [
                "from bs4 import BeautifulSoup\nsoup = BeautifulSoup('<p id=x>hi<b>y</b></p>', 'html.parser')",
                "%%asset a\nsoup.p['class'] = 'c'\nsoup.b.decompose()\na = str(soup)",
                "n = str(soup)",
            ]
        ]
        * 2,
        ["a", "n"],
        says="a: executed .* because .*once in every kernel",
    ),
    Case(
        "index_that_is_looked_up_in_is_no_change",
        [
            [
                (
                    "import pandas as pd\ndf = pd.DataFrame({'v': [1, 2]}, index=list('xy'))\nidx = df.index\n"
                    "pairs = pd.MultiIndex.from_product([[1], [2, 3]], names=['p', 'q'])"
                ),
                "%%asset a\na = [idx.get_loc('y'), pairs.get_loc((1, 3)), 'x' in idx, idx.is_unique]",
                "%%asset b\nidx.name = 'k'\npairs.names = ['r', 's']\nb = 1",
                "n = df.index.name, idx.name, list(pairs.names)",
            ]
        ]
        * 2,
        ["a", "b", "n"],
        reused=["a", "b"],
    ),
    Case(
        "dict_and_list_changed",
        [
            [
                "config = {'lr': 0.1}\ncallbacks = []",
                "%%asset model\nconfig['lr'] = 0.5\ncallbacks.append('log')\nmodel = config['lr'] * 2",
            ]
        ]
        * 3,
        ["model", "config", "callbacks"],
        reused=["model"],
    ),
    Case(
        "class_attribute_changed",
        [
            [
                "class State:\n    count = 0",
                "%%asset step\nState.count += 1\nstep = 'done'",
                "%%asset after\nafter = State.count",
            ]
        ]
        * 2,
        ["State.count", "after"],
        reused=["step", "after"],
    ),
    changed(
        "nested_list_changed",
        "net = {'layers': [1], 'name': 'a'}\nlayers = net['layers']",
        "net['layers'].append(2)",
        ["net", "layers", "layers is net['layers']"],
    ),
    changed(
        "list_of_dicts_changed",
        "rows = [{'v': 1}, {'v': 2}]\nfirst = rows[0]",
        "for row in rows:\n    row['w'] = row['v'] * 2",
        ["rows", "first", "first is rows[0]", "row"],
    ),
    changed("alias_changed", "a = []\nb = a", "b.append(1)", ["a", "b", "a is b"]),
    changed(
        "one_object_under_two_keys",
        "shared = [1]\nboth = {'x': shared, 'y': shared}",
        "both['x'].append(2)",
        ["both", "shared", "both['y'] is shared"],
    ),
    changed(
        "keys_deleted",
        "config = {'a': 1, 'b': 2}\nwords = ['x', 'y']",
        "del config['a']\nwords.clear()",
        ["config", "words"],
    ),
    changed("list_sorted_in_place", "words = ['b', 'a', 'c']", "words.sort()\nwords.reverse()", ["words"]),
    changed("set_changed", "seen = {1}", "seen.update([2, 3])\nseen.discard(1)", ["sorted(seen)"]),
    changed("deque_changed", "from collections import deque\nlast = deque([1, 2], maxlen=2)", "last.append(3)", ["last"]),
    changed(
        "defaultdict_changed",
        "from collections import defaultdict\ngroups = defaultdict(list)",
        "groups['a'].append(1)",
        ["groups", "groups['new']"],
    ),
    changed(
        "counter_changed",
        "from collections import Counter\ncounts = Counter('aab')",
        "counts.update('bc')",
        ["counts", "counts['zzz']"],
    ),
    changed(
        "ordered_dict_changed",
        "from collections import OrderedDict\ncache = OrderedDict(a=1, b=2)",
        "cache.move_to_end('a')",
        ["list(cache)"],
    ),
    changed("bytearray_changed", "data = bytearray(b'abc')", "data[0] = 90\ndata += b'd'", ["data"]),
    changed(
        "array_changed_in_place",
        "import numpy as np\nvalues = np.zeros(3)\nsame = values",
        "values[0] = 5\nvalues += 1",
        ["values.tolist()", "same is values"],
    ),
    changed(
        "array_view_changed",
        "import numpy as np\nvalues = np.zeros(4)\npart = values[1:3]",
        "part[:] = 7",
        ["values.tolist()", "part.tolist()", "np.shares_memory(values, part)"],
    ),
    changed(
        "column_added",
        "import pandas as pd\ndf = pd.DataFrame({'v': [1, 2]})\nsame = df",
        "df['w'] = df['v'] * 2",
        ["df.to_dict('list')", "same is df"],
        "n = list(df.columns)",
    ),
    changed(
        "frame_changed_inplace",
        "import pandas as pd\ndf = pd.DataFrame({'v': [2.0, None, 1.0], 'x': 1})",
        "df.dropna(inplace=True)\ndf.sort_values('v', inplace=True)\ndf.drop(columns='x', inplace=True)",
        ["df.to_dict('split')"],
    ),
    changed(
        "frame_columns_renamed",
        "import pandas as pd\ndf = pd.DataFrame({'A B': [1]})",
        "df.columns = [c.lower().replace(' ', '_') for c in df.columns]\ndf.index.name = 'id'",
        ["list(df.columns)", "df.index.name"],
    ),
    changed(
        "cells_of_a_frame_set",
        "import pandas as pd\ndf = pd.DataFrame({'v': [1, 2, 3]})",
        "df.loc[df.v > 1, 'v'] = 0\ndf.at[0, 'v'] = 9",
        ["df.v.tolist()"],
    ),
    changed(
        "series_changed",
        "import pandas as pd\ns = pd.Series([1, 2], index=list('ab'))",
        "s['a'] = 5\ns.loc['c'] = 7",
        ["s.to_dict()"],
    ),
    changed(
        "instance_changed",
        "class Model:\n    def __init__(self):\n        self.w = None\n    def fit(self, k):\n        self.w = [k]\n        return self\nm = Model()\nheld = {'m': m}",
        "m.fit(3)",
        ["m.w", "held['m'] is m"],
    ),
    changed(
        "dataclass_changed",
        "from dataclasses import dataclass, field\n@dataclass\nclass Job:\n    name: str\n    tags: list = field(default_factory=list)\njob = Job('a')",
        "job.name = 'b'\njob.tags.append(1)",
        ["job"],
    ),
    changed("instance_with_slots_changed", "class P:\n    __slots__ = ('x',)\np = P()\np.x = 1", "p.x += 1", ["p.x"]),
    changed(
        "namespace_changed",
        "from types import SimpleNamespace\nargs = SimpleNamespace(lr=1)",
        "args.lr = 2\nargs.new = [1]",
        ["args"],
    ),
    changed(
        "function_attribute_changed",
        "def f(x):\n    f.calls += 1\n    return x\nf.calls = 0",
        "f(1)\nf(2)",
        ["f.calls"],
    ),
    changed(
        "closure_changed",
        "def make():\n    log = []\n    def add(x):\n        log.append(x)\n        return list(log)\n    return add\nadd = make()",
        "add(1)",
        ["seen"],
        "seen = add(2)",
    ),
    changed(
        "memo_dict_filled",
        "memo = {}\ndef fib(n):\n    if n not in memo:\n        memo[n] = n if n < 2 else fib(n - 1) + fib(n - 2)\n    return memo[n]",
        "x = fib(6)",
        ["x", "memo"],
    ),
    changed(
        "default_changed",
        "def collect(x, into=[]):\n    into.append(x)\n    return list(into)",
        "collect(1)",
        ["seen"],
        "seen = collect(2)",
    ),
    changed("global_rebound_by_a_function", "n = 1\ndef bump():\n    global n\n    n += 1", "bump()", ["n"], "m = n"),
    Case(
        "module_attribute_set",
        [["import tools", "%%asset step\ntools.K = 5\nstep = 1", "m = tools.K", "%%asset after\nafter = tools.K"]] * 2,
        ["m", "after"],
        files={"tools.py": "K = 1\n"},
    ),
    changed(
        "environment_changed",
        "import os",
        "os.environ['MODE'] = 'fast'",
        ["mode"],
        "mode = os.environ.get('MODE')",
    ),
    changed(
        "environment_changed_with_a_long_value",
        "import os\nos.environ['OLD'] = 'to be removed'",
        "os.environ['MODE'] = 'careful and slow'\nos.environ.pop('OLD')",
        ["mode"],
        "mode = (os.environ.get('MODE'), os.environ.get('OLD'))",
    ),
    changed(
        "large_member_changed",
        "log = {'rows': [], 'n': 0}\nclass Model:\n    trees = None\nmodel = Model()",
        "log['rows'].extend({'n': i} for i in range(3000))\nmodel.trees = [[str(i)] * 3 for i in range(2000)]",
        ["len(log['rows'])", "model.trees[-1]", "after"],
        "after = log['rows'][-1], len(model.trees)",
    ),
    Case(
        "value_is_an_object_that_the_cell_changes",
        [
            [
                "class Model:\n    def __init__(self, parts):\n        self.parts = parts\n    def fit(self):\n        self.fitted = list(self.parts); return self\n    def drop(self, name):\n        self.parts = [each for each in self.parts if each != name]; return self",
                "model = Model(['one', 'two'])",
                "%%asset fitted\nmodel.fit()",
                "again = model",
                "%%asset dropped\nmodel.drop('two')",
                "%%asset rows\nrows = model.parts\nrows.append('three')",
                "after = model.parts, model.fitted",
            ]
        ]
        * 3,
        ["after", "again is model", "rows is model.parts"],
        reused=("fitted", "dropped", "rows"),
    ),
    Case(
        "function_defined_below_an_import",
        [
            [
                "import json",
                "%%asset step\nimport json\nimport math\ndef area(r):\n    return math.pow(r, 2), json.dumps(r)\nstep = area(1)",
                "%%asset after\nafter = area(2)",
            ]
        ]
        * 2,
        ["step", "after"],
        reused=("step", "after"),
    ),
    Case(
        "environment_changed_by_an_import",
        [["import os", "%%asset step\nimport settings\nstep = settings.K", "m = os.environ.get('THREADS_OF_TOOLS')"]] * 2,
        ["m", "step"],
        files={"settings.py": "import os\nos.environ.setdefault('THREADS_OF_TOOLS', 'as many as there are')\nK = 1\n"},
        reused=("step",),
    ),
    Case(
        "environment_changed_and_read",
        [
            [
                "import os",
                f"%%asset step\nos.environ['MODE'] = '{mode}'\nstep = 1",
                "%%asset after\nafter = os.environ.get('MODE')",
            ]
            for mode in ("fast", "slow", "slow")
        ],
        ["after", "os.environ.get('MODE')"],
    ),
    Case(
        "functions_registered_by_an_asset_cell",
        [
            [
                "REGISTRY = {}\ndef register(f):\n    REGISTRY[f.__name__] = f\n    return f",
                "%%asset step\n@register\ndef double(x):\n    return 2 * x\nstep = len(REGISTRY)",
                "%%asset after\nafter = REGISTRY['double'](4)",
                "here = double(1), sorted(REGISTRY)",
            ]
        ]
        * 2,
        ["step", "after", "here"],
    ),
    Case(
        "functions_registered_by_plain_cells",
        [
            [
                "REGISTRY = {}\ndef register(f):\n    REGISTRY[f.__name__] = f\n    return f",
                f"@register\ndef more(x):\n    return x + {k}",
                "%%asset after\nafter = [f(1) for f in REGISTRY.values()]",
            ]
            for k in (1, 2, 2)
        ],
        ["after"],
        reused=["after"],
    ),
    Case(
        "counter_drawn_from",
        [
            [
                "import itertools\nids = itertools.count()",
                "%%asset a\na = next(ids)",
                "%%asset b\nb = next(ids)",
                "c = next(ids)",
            ]
        ]
        * 2,
        ["a", "b", "c"],
    ),
    Case(
        "generator_drawn_from",
        [
            [
                "squares = (i * i for i in range(10))",
                "%%asset a\na = next(squares)",
                "%%asset b\nb = next(squares) + a",
                "c = next(squares)",
            ]
        ]
        * 2,
        ["a", "b", "c"],
    ),
    Case(
        "iterator_drawn_from",
        [["it = iter([3, 1, 2])", "%%asset a\na = next(it)", "%%asset b\nb = next(it)", "c = list(it)"]] * 2,
        ["a", "b", "c"],
    ),
    Case(
        "list_popped_in_turn",
        [
            [
                "jobs = [1, 2, 3, 4]",
                "%%asset a\na = jobs.pop(0)",
                "%%asset b\nb = jobs.pop(0)",
                "c = jobs.pop()",
                "%%asset d\nd = sum(jobs)",
            ]
        ]
        * 2,
        ["a", "b", "c", "d", "jobs"],
        reused=["a", "b", "d"],
    ),
    Case(
        "model_fitted_in_place",
        [
            [
                "from sklearn.linear_model import LinearRegression\nX, y = [[0.0], [1.0], [2.0]], [0.0, 2.0, 4.0]",
                "model = LinearRegression()",
                "%%asset score\nmodel.fit(X, y)\nscore = round(model.score(X, y), 6)",
                "%%asset after\nafter = [round(float(v), 6) for v in model.predict([[5.0]])]",
                "coef = round(float(model.coef_[0]), 6)",
            ]
        ]
        * 2,
        ["score", "after", "coef"],
        reused=["score", "after"],
    ),
    Case(
        "model_fitted_in_place_and_edited",
        [
            [
                "from sklearn.linear_model import Ridge\nX, y = [[0.0], [1.0], [2.0]], [0.0, 2.0, 4.0]",
                f"model = Ridge(alpha={alpha})",
                "%%asset score\nmodel.fit(X, y)\nscore = 1",
                "%%asset after\nafter = [round(float(v), 6) for v in model.predict([[5.0]])]",
            ]
            for alpha in (1, 2, 1)
        ],
        ["score", "after"],
    ),
    Case(
        "change_edited",
        [
            [
                "config = {'lr': 1}",
                f"%%asset step\nconfig['lr'] += {k}\nstep = 1",
                "%%asset after\nafter = config['lr'] * 10",
                "seen = dict(config)",
            ]
            for k in (1, 2, 1)
        ],
        ["after", "seen"],
    ),
    Case(
        "object_before_the_change_edited",
        [
            [
                f"config = {{'lr': {k}}}",
                "%%asset step\nconfig['lr'] += 1\nstep = config['lr']",
                "%%asset after\nafter = config['lr'] * 10",
                "seen = dict(config)",
            ]
            for k in (1, 5, 1, 1)
        ],
        ["step", "after", "seen"],
        reused=["step", "after"],
    ),
    Case(
        "overwritten_without_a_read",
        [[f"config = {{'lr': {k}}}", "%%asset step\nconfig['lr'] = 0.5\nstep = 1", "seen = config['lr']"] for k in (1, 5, 1)],
        ["seen", "config"],
    ),
    Case(
        "consumers_in_a_row",
        [
            [
                "log = []",
                *(f"%%asset s{i}\nlog.append({i})\ns{i} = len(log)" for i in range(5)),
                "%%asset after\nafter = list(log)",
            ]
        ]
        * 2,
        ["after", "log", "s4"],
        reused=["s0", "s4", "after"],
    ),
    Case(
        "consumer_in_the_middle_edited",
        [
            [
                "log = []",
                "%%asset a\nlog.append('a')\na = len(log)",
                f"%%asset b\nlog.extend('b' * {k})\nb = len(log)",
                "%%asset c\nlog.append('c')\nc = len(log)",
            ]
            for k in (1, 2)
        ],
        ["a", "b", "c", "log"],
        reused=["a"],
    ),
    Case(
        "consumer_removed",
        [
            ["log = []", "%%asset a\nlog.append('a')\na = len(log)", *more, "%%asset c\nlog.append('c')\nc = len(log)"]
            for more in (["%%asset b\nlog.append('b')\nb = len(log)"], [])
        ],
        ["a", "c", "log"],
        reused=["a"],
    ),
    Case(
        "asset_cell_changes_its_input",
        [
            [
                "%%asset raw\nraw = [3, 1, 2]",
                "%%asset most\nraw.append(9)\nmost = max(raw)",
                "%%asset n\nn = len(raw)",
                "left = list(raw)",
            ]
        ]
        * 2,
        ["most", "n", "left"],
        reused=["raw", "most", "n"],
    ),
    Case(
        "input_changed_by_two_assets",
        [
            [
                "%%asset raw\nraw = {'v': 1}",
                "%%asset a\nraw['a'] = raw['v'] + 1\na = len(raw)",
                "%%asset b\nraw['b'] = raw['a'] + 1\nb = len(raw)",
                "raw['c'] = 0",
                "%%asset d\nd = dict(raw)",
            ]
        ]
        * 2,
        ["a", "b", "d", "raw"],
        reused=["raw", "a", "b", "d"],
    ),
    Case(
        "input_frame_gets_a_column",
        [
            [
                "import pandas as pd",
                f"%%asset df\ndf = pd.DataFrame({{'v': [1, {k}]}})",
                "%%asset n\ndf['w'] = df.v * 2\nn = int(df.w.sum())",
                "%%asset m\nm = int(df.w.max())",
                "cols = list(df.columns)",
            ]
            for k in (2, 3, 3)
        ],
        ["n", "m", "cols"],
        reused=["df", "n", "m"],
    ),
    Case(
        "helper_changes_its_argument",
        [
            [
                "def clean(rows):\n    rows.append(0)\n    return len(rows)",
                "%%asset raw\nraw = [1]",
                "%%asset n\nn = clean(raw)",
                "%%asset m\nm = clean(raw) + n",
            ]
        ]
        * 2,
        ["n", "m", "raw"],
        reused=["raw", "n", "m"],
    ),
    Case(
        "input_in_place_then_reset",
        [
            [
                "%%asset raw\nraw = [3, 1]",
                "%%asset a\nraw.append(9)\na = sum(raw)",
                "raw = raw[:2]",
                "%%asset b\nb = sum(raw)",
            ]
        ]
        * 2,
        ["a", "b", "raw"],
        reused=["raw", "a", "b"],
    ),
    Case(
        "result_changed_by_the_user",
        [["%%asset a\na = [1, 2]", "%%asset b\nb = len(a)", "size = b"]] * 2,
        ["size", "b"],
        reused=["a", "b"],
    ),
    Case(
        "library_object_is_not_changed",
        [
            [
                "from sklearn.datasets import load_iris",
                "%%asset iris\niris = load_iris()",
                "%%asset rows\nrows = len(iris.data)",
                "n = rows",
            ]
        ]
        * 2,
        ["n"],
        never="not your changed variable|with your iris",
        reused=["iris", "rows"],
    ),
    Case(
        "cached_property_is_not_a_change",
        [
            [
                "from functools import cached_property\nclass T:\n    def __init__(self, n):\n        self.n = n\n    @cached_property\n    def double(self):\n        return self.n * 2\nt = T(3)",
                "%%asset a\na = t.double",
                "%%asset b\nb = t.double + 1",
            ]
        ]
        * 2,
        ["a", "b", "t.double"],
        reused=["a", "b"],
    ),
    Case(
        "list_that_the_deleter_of_a_property_changes",
        [
            [
                "log = []\nclass T:\n    @property\n    def v(self):\n        return 1\n    @v.deleter\n    def v(self):\n        log.append(len(log))",
                "%%asset a\nt = T()\na = t.v\ndel t.v",
                "b = list(log)",
            ]
        ]
        * 2,
        ["a", "b", "log"],
        reused=["a"],
    ),
    Case(
        "lazy_frame_attributes_are_no_change",
        [
            [
                "import pandas as pd",
                "%%asset df\ndf = pd.DataFrame({'v': [1, 2, 2]})",
                "%%asset n\nn = int(df.index.is_unique) + df.v.nunique()",
                "%%asset m\nm = len(df.v.unique())",
            ]
        ]
        * 2,
        ["n", "m"],
        never="with your",
        reused=["df", "n", "m"],
    ),
    Case(
        "value_is_an_object_of_the_notebook",
        [["base = [1]", "%%asset a\na = base", "base.append(2)", "b = list(a)"]] * 2,
        ["a", "b", "a is base"],
    ),
    Case(
        "value_holds_an_object_of_the_notebook",
        [["base = [1]", "%%asset a\na = {'x': base, 'n': 1}", "base.append(2)", "b = a['x']"]] * 2,
        ["a", "b", "a['x'] is base"],
    ),
    Case(
        "value_is_a_view",
        [
            [
                "import numpy as np\nbase = np.zeros(4)",
                "%%asset part\npart = base[1:3]",
                "base[1] = 9",
                "b = part.tolist()",
            ]
        ]
        * 2,
        ["b"],
    ),
    Case(
        "views_of_many_kinds",
        [
            [
                "import numpy as np, array\nbase = np.arange(12.0).reshape(3, 4)\nbuf = bytearray(8)\nbox = {'a': [np.zeros(3)]}\nrec = np.zeros(2, [('x', 'f8'), ('y', 'i4')])\nobj = np.array([1, 'a', None], dtype=object)\ndays = np.zeros(3, 'datetime64[D]')",
                "%%asset part\npart = base.T\nback, cols, bits = base[::-1], base[:, 1:3], base.view('i8')\nover = np.frombuffer(buf, 'u1')\ninner, y, o, d = box['a'][0][1:], rec['y'], obj[1:], days[::2]\nflat = base.reshape(-1)\nro = base[0]\nro.flags.writeable = False",
                "base[0] = 9\nbuf[1] = 7\nbox['a'][0][2] = 5\nrec['y'][1] = 3\nobj[2] = 'z'\ndays[2] = '2026-01-01'\nback[0, 3] = 100",
                "n = part.tolist(), back.tolist(), cols.tolist(), bits.tolist(), over.tolist(), inner.tolist(), y.tolist(), o.tolist(), d.tolist(), flat.tolist(), ro.tolist(), ro.flags.writeable, part.base is base.base, base[2, 3]",
            ]
        ]
        * 3,
        ["n"],
        reused=["part"],
    ),
    Case(
        "views_of_frames",
        [
            [
                "import numpy as np, pandas as pd\ndf = pd.DataFrame({'v': [1.0, 2.0, 3.0], 'w': [4.0, 5.0, 6.0], 's': ['a', 'b', 'c']})",
                "%%asset col\ncol = df['v'].to_numpy()\nvalues, rows = df['w'].values, df[['v', 'w']].to_numpy()",
                "%%asset other\nother = pd.DataFrame({'k': [1.0, 2.0]})\nseries = other['k']\npart = other[['k']]",
                "df.loc[0, 'v'] = 9\ndf.iloc[1, 1] = 8\nother.loc[0, 'k'] = 5\nseries.iloc[1] = 70",
                "n = col.tolist(), values.tolist(), col.flags.writeable, rows.tolist()",
                "m = other.k.tolist(), series.tolist(), part.k.tolist()",
            ]
        ]
        * 2,
        ["n", "m"],
        reused=["col"],
    ),
    Case(
        "frame_over_an_array",
        [
            [
                "import numpy as np, pandas as pd\nbase = np.arange(3.0)",
                "%%asset df\ndf = pd.DataFrame({'v': base}, copy=False)\ns = pd.Series(base, copy=False)\nown = pd.Series(base)",
                "%%asset over\nover = pd.Series(base, copy=False)\nfirst = own.copy(deep=False)\nsecond = own.copy(deep=False)",
                "base[0] = 9\nfirst.iloc[1] = 50\nsecond.iloc[2] = 60",
                "n = df.v.tolist(), s.tolist(), own.tolist(), over.tolist(), first.tolist(), second.tolist()",
            ]
        ]
        * 2,
        ["n"],
        reused=["df"],
    ),
    Case(
        "views_within_a_cell",
        [
            [
                "import numpy as np, pandas as pd",
                "%%asset mid\ndata = np.arange(10)\nmid = data[2:8]\nparts = [mid[:2], data[5:7]]\nleft, right = np.split(np.arange(6), 2)\nframe = pd.DataFrame({'a': [1, 2], 'b': [3, 4]})\ncol = frame['b'].to_numpy()",
                "data[2] = 100\nmid[3] = 200\nleft[0] = 7\nframe.loc[1, 'b'] = 50",
                "n = data.tolist(), mid.tolist(), [each.tolist() for each in parts], left.tolist(), right.tolist(), col.tolist()",
            ]
        ]
        * 2,
        ["n"],
        reused=["mid"],
    ),
    Case(
        "views_of_an_array_with_gaps",
        [
            [
                "import numpy as np",
                "%%asset flat\ntable = np.arange(20.0).reshape(4, 5)\nflat = table[:, :-1]\nimages = flat.view()\nimages.shape = (4, 2, 2)\npair = [flat[:, 1:], flat]\ndel table",
                "flat[1] = 9",
                "n = images.tolist(), pair[0].tolist(), pair[1] is flat",
            ]
        ]
        * 2,
        ["n"],
        reused=["flat"],
    ),
    Case(
        "axes_of_the_notebook_drawn_on",
        [
            [
                "import matplotlib\nmatplotlib.use('agg')\nimport matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot(range(9))",
                "%%asset drawn\nax.plot([3, 1])\nax.set_title('new')\ndrawn = 2",
                "n = len(ax.lines), ax.get_title(), ax.figure is fig",
                "%%asset seen\nseen = ax.get_title()",
            ]
        ]
        * 2,
        ["n", "drawn", "seen"],
        ran=["drawn"],
    ),
    Case(
        "figure_and_axes_of_a_cell",
        [
            [
                "import matplotlib\nmatplotlib.use('agg')\nimport matplotlib.pyplot as plt",
                "%%asset ax\nfig, ax = plt.subplots()\nlines = ax.plot([1, 2, 3])",
                "n = ax.figure is fig, fig.axes[0] is ax, lines[0] is ax.lines[0], lines[0].figure is fig",
            ]
        ]
        * 2,
        ["n"],
        reused=["ax"],
    ),
    Case(
        "views_of_assets",
        [
            [
                "import numpy as np",
                "%%asset base\nbase = np.zeros(6)",
                "%%multi_asset a b c\na = base[:4]\nb = base[2:]\nwhole = np.ones(5)\nc = whole[:3]\nd = whole[2:]\nheld = {'all': [base, a, d]}",
                "base[3] = 5\na[2] = 6\nc[2] = 7",
                "n = a.tolist(), b.tolist(), c.tolist(), d.tolist(), whole.tolist(), held['all'][0] is base, held['all'][1] is a",
                "%%asset total\ntotal = float(a.sum() + b.sum() + base.sum() + d.sum())",
            ]
        ]
        * 2,
        ["n", "total"],
        reused=["base", "a", "b", "c", "total"],
    ),
    Case(
        "views_put_into_objects",
        [
            [
                "import numpy as np\nbase = np.zeros(4)\nbox = {}\nclass K:\n    parts = []",
                "%%asset a\na = np.ones(3)\nbox['base'] = base[1:]\nbox['a'] = a[:2]\nK.parts.append(base[::2])\na[0] = 4",
                "base[2] = 9\na[1] = 8",
                "n = box['base'].tolist(), box['a'].tolist(), K.parts[0].tolist()",
            ]
        ]
        * 2,
        ["n"],
        reused=["a"],
    ),
    Case(
        "view_of_an_edited_array",
        [
            [
                f"import numpy as np\nbase = np.zeros({k})",
                "%%asset part\npart = base[1:3]",
                "base[1] = 9",
                "b = part.tolist()",
            ]
            for k in (4, 5, 4, 4)
        ],
        ["b"],
        reused=["part"],
    ),
    Case(
        "view_of_an_array_that_was_turned",
        [
            [
                "import numpy as np\nbase = np.arange(6).reshape(2, 3)",
                f"base = np.array(base, order='{k}')",
                "%%asset part\npart = base[:, 1]",
                "base[1, 1] = 9",
                "b = part.tolist()",
            ]
            for k in "CFC"
        ],
        ["b"],
    ),
    Case(
        "views_that_are_no_arrays",
        [
            [
                "d = {'a': 1}\nbuf = bytearray(b'abc')\nfrom types import MappingProxyType\nfrom collections import ChainMap",
                "%%asset keys\nkeys = d.keys()\nitems = d.items()\nmv = memoryview(buf)[1:]\nproxy = MappingProxyType(d)\nchain = ChainMap({}, d)",
                "d['b'] = 2\nbuf[1] = 122",
                "n = list(keys), list(items), bytes(mv), dict(proxy), dict(chain)",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "object_holds_the_value",
        [["boxes = {}", "%%asset a\na = [1]\nboxes['a'] = a", "a.append(2)", "b = boxes['a']"]] * 2,
        ["b", "boxes['a'] is a"],
    ),
    Case(
        "two_values_share",
        [["%%multi_asset a b\na = [1]\nb = a", "a.append(2)", "c = list(b)"]] * 2,
        ["b", "c", "a is b"],
    ),
    # Several names of an object: the change is made to the object that the cell reads, whatever the other names are bound to now.
    Case(
        "copy_instead_of_another_name",
        [
            [
                "import pandas as pd\ndf = pd.DataFrame({'price': [1, None, 3]})",
                f"work = df{copied}",
                "%%asset total\nwork['price'] = work['price'].fillna(0)\ntotal = float(work.price.sum())",
                "missing = int(df.price.isna().sum())",
            ]
            for copied in ("", ".copy()", "")
        ],
        ["missing", "total", "work is df"],
    ),
    Case(
        "list_of_another_name",
        [[f"p = [1]\nq = {value}", "%%asset n\nq.append(2)\nn = len(q)", "length = len(p)"] for value in ("p", "list(p)", "p")],
        ["p", "q", "n", "length"],
    ),
    # Functions and classes that are set as attributes of the notebook's classes and modules.
    *[
        changed(name, setup, change, ["seen"], f"seen = {value}")
        for name, setup, change, value in (
            (
                "method_added_to_a_class",
                "class Net:\n    n = 3\nnet = Net()",
                "def train(self):\n    return self.n * 2\nNet.train = train",
                "net.train(), Net.n",
            ),
            (
                "method_of_a_class_replaced",
                "class Net:\n    def go(self):\n        return 1\n    def stay(self):\n        return 5\nnet = Net()",
                "def faster(self):\n    return 10\nNet.go = faster",
                "net.go(), net.stay()",
            ),
            (
                "lambda_set_on_a_class",
                "class Net:\n    pass\nnet = Net()",
                "setattr(Net, 'go', lambda self: 7)",
                "net.go()",
            ),
            (
                "class_set_on_a_class",
                "class Layer:\n    pass\nclass Net:\n    kind = None",
                "Net.kind = Layer",
                "Net.kind is Layer",
            ),
            (
                "counter_of_a_class_with_a_decorated_method",
                "def more(f):\n    def wrapper(*given):\n        return f(*given) + 1\n    return wrapper\nclass Net:\n    runs = 0\n    @more\n    def go(self):\n        return 1\nnet = Net()",
                "Net.runs += net.go()",
                "net.go(), Net.runs",
            ),
        )
    ],
    changed(
        "property_and_static_method_set_on_a_class",
        "class Net:\n    pass\nnet = Net()",
        "Net.size = property(lambda self: 8)\nNet.make = staticmethod(lambda: 9)",
        ["seen"],
        "seen = net.size, Net.make()",
        reused=False,
    ),
    Case(
        "function_of_a_local_module_replaced",
        [["import tools", "%%asset step\ntools.f = lambda: 10\nstep = 1", "n = tools.f()"]] * 2,
        ["n"],
        files={"tools.py": "def f():\n    return 1\n"},
    ),
    changed(
        "state_of_a_context_manager",
        "class Timer:\n    def __init__(self):\n        self.n = 0\n    def __enter__(self):\n        self.n += 1\n        return self\n"
        "    def __exit__(self, *given):\n        pass\ntimer = Timer()",
        "with timer:\n    pass",
        ["timer.n", "n"],
        "n = timer.n",
    ),
    # Objects that a value contains several times.
    Case(
        "rows_that_are_one_row",
        [
            [
                "board = [['.'] * 3] * 3",
                "%%asset s\nboard[0][0] = 'X'\ns = sum(r.count('X') for r in board)",
                "n = board",
            ],
            [
                "board = [['.'] * 3 for _ in range(3)]",
                "%%asset s\nboard[0][0] = 'X'\ns = sum(r.count('X') for r in board)",
                "n = board",
            ],
        ],
        ["s", "n"],
    ),
    Case(
        "rows_that_are_one_row_reused",
        [
            [
                "board = [['.'] * 3] * 3",
                "%%asset s\nboard[0][0] = 'X'\ns = sum(r.count('X') for r in board)",
                "n = board",
            ]
        ]
        * 2,
        ["s", "n"],
        reused=("s",),
    ),
    Case(
        "lists_of_fromkeys",
        [
            [
                "groups = dict.fromkeys('ab', [])",
                "%%asset s\ngroups['a'].append(1)\ns = dict(groups)",
            ],
            [
                "groups = {k: [] for k in 'ab'}",
                "%%asset s\ngroups['a'].append(1)\ns = dict(groups)",
            ],
        ],
        ["s"],
    ),
    Case(
        "dicts_that_are_one_dict",
        [
            [
                "base = {'lr': 1}\nruns = [base for _ in range(2)]",
                "%%asset s\nfor i, r in enumerate(runs):\n    r['lr'] += i + 1\ns = [r['lr'] for r in runs]",
            ],
            [
                "base = {'lr': 1}\nruns = [dict(base) for _ in range(2)]",
                "%%asset s\nfor i, r in enumerate(runs):\n    r['lr'] += i + 1\ns = [r['lr'] for r in runs]",
            ],
        ],
        ["s"],
    ),
    Case(
        "frame_and_its_second_name",
        [
            [
                "import pandas as pd\ndf = pd.DataFrame({'price': [1, None, 3]})",
                "work = df",
                "%%asset s\nwork['price'] = work['price'].fillna(0)\ns = df.price.sum()",
                "missing = int(df.price.isna().sum())",
            ],
            [
                "import pandas as pd\ndf = pd.DataFrame({'price': [1, None, 3]})",
                "work = df.copy()",
                "%%asset s\nwork['price'] = work['price'].fillna(0)\ns = df.price.sum()",
                "missing = int(df.price.isna().sum())",
            ],
        ],
        ["missing", "float(s)"],
    ),
    Case(
        "instances_that_are_one",
        [
            [
                "class P:\n    def __init__(self):\n        self.x = 0",
                "ps = [P()] * 3",
                "%%asset s\nps[0].x += 1\ns = [p.x for p in ps]",
            ],
            [
                "class P:\n    def __init__(self):\n        self.x = 0",
                "ps = [P() for _ in range(3)]",
                "%%asset s\nps[0].x += 1\ns = [p.x for p in ps]",
            ],
        ],
        ["s"],
    ),
    Case(
        "rows_of_an_asset_that_are_one_row",
        [
            [
                "%%asset rows\nrows = [[0] * 3] * 100",
                "%%asset s\nrows[0][1] = 5\ns = [list(p) for p in rows]",
            ],
            [
                "%%asset rows\nrows = [[0] * 3 for _ in range(100)]",
                "%%asset s\nrows[0][1] = 5\ns = [list(p) for p in rows]",
            ],
        ],
        ["s", "rows"],
    ),
    Case(
        "attributes_that_are_one_list",
        [
            [
                "from dataclasses import dataclass\n@dataclass\nclass C:\n    a: list\n    b: list",
                "z = [0]\nc = C(z, z)",
                "%%asset s\nc.a.append(1)\ns = len(c.b)",
            ],
            [
                "from dataclasses import dataclass\n@dataclass\nclass C:\n    a: list\n    b: list",
                "z = [0]\nc = C(z, [0])",
                "%%asset s\nc.a.append(1)\ns = len(c.b)",
            ],
        ],
        ["s"],
    ),
    Case(
        "arrays_that_are_one_array",
        [
            [
                "import numpy as np\nz = np.zeros(3)",
                "l = [z for _ in range(3)]",
                "%%asset s\nl[0][0] = 1\ns = float(sum(a.sum() for a in l))",
            ],
            [
                "import numpy as np\nz = np.zeros(3)",
                "l = [z.copy() for _ in range(3)]",
                "%%asset s\nl[0][0] = 1\ns = float(sum(a.sum() for a in l))",
            ],
        ],
        ["s"],
    ),
    Case(
        "second_name_in_a_helper",
        [
            [
                "p = [1]\nq = p\ndef add(v):\n    q.append(v)\n    return len(p)",
                "%%asset s\ns = add(2)",
            ],
            [
                "p = [1]\nq = list(p)\ndef add(v):\n    q.append(v)\n    return len(p)",
                "%%asset s\ns = add(2)",
            ],
        ],
        ["s", "p"],
    ),
    # Objects of libraries that are used in `with` statements.
    Case(
        "session_options",
        [
            [
                "import requests\nsession = requests.Session()",
                "%%asset s\nsession.verify = False\nsession.params = {'a': 1}\ns = 1",
                "n = session.verify, session.params",
            ]
        ]
        * 2,
        ["n"],
        reused=("s",),
    ),
    Case(
        "session_credentials",
        [
            [
                "import requests\nsession = requests.Session()",
                "%%asset s\nsession.auth = ('us', 'vvv')\ns = 1",
                "n = session.auth",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "session_adapter",
        [
            [
                "import requests\nsession = requests.Session()\nfrom requests.adapters import HTTPAdapter",
                "%%asset s\nsession.mount('http://x', HTTPAdapter(max_retries=3))\ns = 1",
                "n = list(session.adapters), session.adapters['http://x'].max_retries.total",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "session_of_an_asset_cell",
        [
            [
                "import requests",
                "%%asset s\nsession = requests.Session()\nsession.headers['A'] = 'b'\ns = 1",
                "%%asset t\nsession.headers['C'] = 'd'\nt = 1",
                "n = session.headers['A'], session.headers['C']",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "archive_of_the_notebook",
        [
            [
                "import zipfile\nz = zipfile.ZipFile('a.zip', 'w')",
                "%%asset s\nz.writestr('x', 'y')\ns = 1",
                "n = z.namelist()\nz.close()",
            ]
        ]
        * 2,
        ["n"],
    ),
    # Values that properties of libraries keep.
    Case(
        "groups_that_are_read",
        [
            [
                "import pandas as pd, numpy as np\ndf=pd.DataFrame({'k':list('aabb'),'v':[1.,2,3,4],'s':[1,2,3,4]})\ng=df.groupby('k')",
                "%%asset a\na = g[['v', 's']].agg('mean')",
                "x = g.ngroups",
                "%%asset b\nb = g.v.sum()",
                "%%asset a\na = g[['v', 's']].agg('mean')",
            ]
        ]
        * 2,
        ["a", "x", "b"],
        reused=("a", "b"),
    ),
    Case(
        "property_kept_by_the_users_class",
        [
            [
                "from functools import cached_property\nK = 2\nclass C:\n    @cached_property\n    def x(self):\n        return K\nc = C()",
                "%%asset a\na = c.x",
                "K = 5",
                "n = c.x",
            ]
        ]
        * 2,
        ["a", "n"],
        reused=("a",),
    ),
    Case(
        "index_that_is_read",
        [
            [
                "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]})\nidx = df.index",
                "%%asset a\na = idx.is_unique, df.a.is_monotonic_increasing",
                "n = 1",
                "%%asset b\nb = df.a.sum(), len(idx)",
            ]
        ]
        * 2,
        ["a", "b"],
        reused=("a", "b"),
    ),
    # Arrays in the same memory.
    Case(
        "view_of_another_row",
        [
            [
                "import numpy as np",
                "m = np.zeros((2, 2))\nrow = m[0]",
                "%%asset s\nm[0, 0] = 5\ns = float(row.sum())",
                "n = m.tolist(), row.tolist()",
            ],
            [
                "import numpy as np",
                "m = np.zeros((2, 2))\nrow = m[1]",
                "%%asset s\nm[0, 0] = 5\ns = float(row.sum())",
                "n = m.tolist(), row.tolist()",
            ],
        ],
        ["n", "s"],
    ),
    Case(
        "view_that_becomes_a_copy",
        [
            [
                "import numpy as np",
                "m = np.zeros((2, 2))\nrow = m[0]",
                "%%asset s\nrow += 5\ns = float(m.sum())",
                "n = m.tolist(), row.tolist()",
            ],
            [
                "import numpy as np",
                "m = np.zeros((2, 2))\nrow = m[0].copy()",
                "%%asset s\nrow += 5\ns = float(m.sum())",
                "n = m.tolist(), row.tolist()",
            ],
        ],
        ["n", "s"],
    ),
    # Objects in the cells of frames and arrays.
    Case(
        "named_list_in_a_frame",
        [
            [
                "import pandas as pd\nl = ['a']\ndf = pd.DataFrame(dict(tags=[l, ['b']]))",
                "%%asset s\ndf.tags[0].append('x')\ns = 1",
                "q = df.tags.tolist()",
            ]
        ]
        * 2,
        ["q", "l"],
    ),
    Case(
        "lists_in_two_frames",
        [
            [
                "import pandas as pd\ndf = pd.DataFrame(dict(tags=[['a'], ['b']]))\ndf2 = df.head(1)",
                "%%asset s\nfor t in df.tags: t.append('x')\ns = 1",
                "q = df.tags.tolist(), df2.tags.tolist()",
            ]
        ]
        * 2,
        ["q"],
    ),
    Case(
        "lists_in_a_copied_frame",
        [
            [
                "import pandas as pd\ndf = pd.DataFrame(dict(tags=[['a'], ['b']]))\nraw = df.copy()",
                "%%asset s\nfor t in df.tags: t.append('x')\ns = 1",
                "q = df.tags.tolist(), raw.tags.tolist()",
            ]
        ]
        * 2,
        ["q"],
    ),
    Case(
        "lists_in_records_and_a_frame",
        [
            [
                "import pandas as pd\nrecs = [{'id':1,'tags':['a']},{'id':2,'tags':['b']}]\ndf = pd.DataFrame(recs)",
                "%%asset s\nfor t in df.tags: t.append('x')\ns = 1",
                "q = df.tags.tolist(), recs",
            ]
        ]
        * 2,
        ["q"],
    ),
    Case(
        "list_in_an_array",
        [
            [
                "import numpy as np\nl=[1]\na = np.empty(1,object); a[0]=l",
                "%%asset s\na[0].append(2)\ns = 1",
                "q = a.tolist(), l",
            ]
        ]
        * 2,
        ["q"],
    ),
    Case(
        "list_in_a_series",
        [
            [
                "import numpy as np, pandas as pd\nl=[]\na = pd.Series([l, []])",
                "%%asset s\na[0].append(1)\ns = len(a[0]) if 0 in a else 0",
                "q = a.tolist()",
            ]
        ]
        * 3,
        ["s", "q"],
    ),
    # Mocks make their attributes when they are read.
    Case(
        "mock_of_the_notebook",
        [
            [
                "from unittest.mock import MagicMock\napi = MagicMock()\napi.get.return_value = {'v': 2}",
                "%%asset b\nb = api.get('u')['v']",
                "n = b, api.get.call_count",
            ]
        ]
        * 2,
        ["n"],
        ran=["b"],
    ),
    Case(
        "mock_of_an_asset_cell",
        [
            [
                "from unittest import mock",
                "%%asset a\nm = mock.MagicMock()\nm.f.return_value = 3\na = m.f(2)",
                "n = m.f(1), m.f.call_count",
            ]
        ]
        * 2,
        ["n", "a"],
    ),
    Case(
        "mock_of_a_with_statement",
        [
            [
                "from unittest import mock\nimport os\nseen = {}",
                "%%asset a\nwith mock.patch('os.getcwd') as m:\n    seen['n'] = len(str(os.getcwd())) > 0\na = 1",
                "n = m.call_count, seen",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "profile_of_a_with_statement",
        [
            [
                "import cProfile, pstats\nseen = {}",
                "%%asset a\nwith cProfile.Profile() as profile:\n    seen['n'] = sum(range(10))\na = 1",
                "n = seen, pstats.Stats(profile).total_calls > 0",
            ]
        ]
        * 2,
        ["n"],
    ),
]
