"""Names that text refers to: SQL, `query`, `eval` and formulas, however the text reaches the library."""

from oracle import Case

FIRST = "import pandas as pd, duckdb\ndf = pd.DataFrame({'v': [1, 2]})"
SECOND = "import pandas as pd, duckdb\ndf = pd.DataFrame({'v': [1, 5]})"
RUN = "def run(sql):\n    return duckdb.sql(sql).fetchall()[0][0]"
TEN = "import pandas as pd\nframe = pd.DataFrame({'v': range(10), 'w': range(10)})"


def frames(*cells):
    """Two runs: the frame is edited, and the cells are not."""
    return [[FIRST, *cells], [SECOND, *cells]]


CASES = [
    Case(
        "sql_text_given_to_a_helper",
        frames(RUN, "TEXT = 'select sum(v) from df'", "%%asset total\ntotal = run(TEXT)"),
        ["int(total)"],
    ),
    Case(
        "sql_literal_given_to_a_helper",
        frames(RUN, "%%asset total\ntotal = run('select sum(v) from df')"),
        ["int(total)"],
    ),
    Case(
        "sql_from_a_dict",
        frames(
            "QUERIES = {'total': 'select sum(v) from df'}",
            "%%asset total\ntotal = duckdb.sql(QUERIES['total']).fetchall()[0][0]",
        ),
        ["int(total)"],
    ),
    Case(
        "sql_computed",
        frames(
            "def text(table, how='sum'):\n    return f'select {how}(v) from {table}'",
            RUN,
            "%%asset total\ntotal = run(text('d' + 'f'))",
        ),
        ["int(total)"],
    ),
    Case(
        "sql_as_a_default",
        frames(
            "def run(sql='select sum(v) from df'):\n    return duckdb.query(sql).fetchall()[0][0]",
            "%%asset total\ntotal = run()",
        ),
        ["int(total)"],
    ),
    Case(
        "sql_on_a_connection",
        frames(
            "%%asset total\ncon = duckdb.connect()\nname = 'df'\ntotal = con.execute('select sum(v) from ' + name).fetchone()[0]\ncon.close()"
        ),
        ["int(total)"],
    ),
    Case(
        "sql_joins_two_frames",
        [
            [
                FIRST,
                f"names = pd.DataFrame({{'v': [1, 2], 'name': ['a', '{name}']}})",
                "J = 'select max(name) from df join names using (v)'",
                RUN,
                "%%asset top\ntop = run(J)",
            ]
            for name in ("b", "c")
        ],
        ["top"],
    ),
    Case(
        "sql_names_another_frame",
        [
            [
                FIRST,
                f"other = pd.DataFrame({{'v': [{k}]}})",
                RUN,
                "%%asset total\ntotal = run('select sum(v) from df')",
                "n = len(other)",
            ]
            for k in (1, 2)
        ],
        ["int(total)", "n"],
        reused=["total"],
    ),
    Case(
        "sql_names_its_own_table",
        frames("%%asset total\ntotal = duckdb.sql('with df as (select 7 as v) select sum(v) from df').fetchall()[0][0]"),
        ["int(total)"],
        reused=["total"],
    ),
    *[
        Case(
            f"sql_names_no_frame_{at}",
            frames(f"%%asset total\ntotal = duckdb.sql({sql!r}).fetchall()[0][0]"),
            ["int(total)"],
            reused=["total"],
        )
        for at, sql in enumerate(
            (
                "select sum(df.v) from (select 3 as v) as df",
                "select extract(year from df) from (select date '2026-01-02' as df)",
                "select 5 as v -- from df\n where 'a' <> 'x from df'",
                "with a as (select 1 as v), df as (from a) select v from (select * from df) join df as d using (v)",
                "with recursive df as (select 1 as v union all select v + 1 from df where v < 3) select max(v) from df",
            )
        )
    ],
    *[
        Case(
            f"sql_names_the_frame_{at}",
            frames(f"%%asset total\ntotal = duckdb.sql({sql!r}).fetchall()[0][0]"),
            ["int(total)"],
            ran=["total"],
        )
        for at, sql in enumerate(
            (
                "with df as (select v from df) select sum(v) from df",
                "with a as (select v from df), df as (select 1 as v) select sum(a.v) from a",
                "select sum(v) from (with df as (select 1 as v) select * from df) x join df using (v) where x.v > 0 or true",
                'select sum(d.v) from (select 1) as x, "df" as d',
            )
        )
    ],
    Case(
        "polars_sql_names_its_own_table",
        [
            [
                f"import polars as pl\ndf = pl.DataFrame({{'v': [1, {k}]}})",
                "%%asset total\ntotal = pl.DataFrame({'w': [1, 2]}).sql('with df as (select w from self) select sum(w) as s from df')['s'][0]",
            ]
            for k in (1, 2)
        ],
        ["int(total)"],
        reused=["total"],
    ),
    Case(
        "sql_over_an_asset",
        [
            [
                "import pandas as pd, duckdb",
                f"%%asset df\ndf = pd.DataFrame({{'v': [1, {k}]}})",
                RUN,
                "TEXT = 'select sum(v) from df'",
                "%%asset total\ntotal = run(TEXT)",
            ]
            for k in (2, 3, 3)
        ],
        ["int(total)"],
        reused=["df", "total"],
    ),
    Case(
        "sql_over_an_asset_that_a_plain_cell_changed",
        [
            [
                "import pandas as pd, duckdb",
                "%%asset df\ndf = pd.DataFrame({'v': [1, 2]})",
                f"df['v'] = df['v'] * {k}",
                RUN,
                "%%asset total\ntotal = run('select sum(v) from df')",
            ]
            for k in (1, 3)
        ],
        ["int(total)"],
    ),
    Case(
        "polars_sql_in_a_helper",
        [
            [
                f"import polars as pl\ndf = pl.DataFrame({{'v': [1, {k}]}})",
                "def run(text):\n    return pl.sql(text).collect().item()",
                "TEXT = 'select sum(v) from df'",
                "%%asset total\ntotal = run(TEXT)",
            ]
            for k in (2, 5)
        ],
        ["total"],
    ),
    Case(
        "query_of_a_global_text",
        [[TEN, f"limit = {k}", "Q = 'v > @limit'", "%%asset some\nsome = len(frame.query(Q))"] for k in (3, 6)],
        ["some"],
    ),
    Case(
        "query_in_a_helper",
        [
            [
                TEN,
                f"limits = {{'low': {k}}}",
                "def pick(text):\n    return len(frame.query(text))",
                "%%asset some\nsome = pick('v > @limits[\"low\"]')",
            ]
            for k in (3, 6)
        ],
        ["some"],
    ),
    Case(
        "query_reads_a_local",
        [
            [
                TEN,
                f"limit = {k}",
                "def above(text, limit):\n    return len(frame.query(text))",
                "%%asset some\nsome = above('v > @limit', 4)",
                "n = limit",
            ]
            for k in (3, 6)
        ],
        ["some", "n"],
        reused=["some"],
    ),
    Case(
        "frame_eval_in_a_helper",
        [
            [
                TEN,
                f"factor = {k}",
                "E = 'total = v * @factor'",
                "def add(text):\n    return int(frame.eval(text).total.sum())",
                "%%asset total\ntotal = add(E)",
            ]
            for k in (1, 3)
        ],
        ["total"],
    ),
    Case(
        "pandas_eval",
        [[TEN, f"offset = {k}", "E = 'frame.v + offset'", "%%asset total\ntotal = int(pd.eval(E).sum())"] for k in (1, 3)],
        ["total"],
    ),
    Case(
        "eval_in_a_helper",
        [
            [f"K = {k}", "def compute(text):\n    return eval(text)", "TEXT = 'K * 2'", "%%asset a\na = compute(TEXT)"]
            for k in (1, 3)
        ],
        ["a"],
    ),
    Case("eval_in_the_cell", [[f"K = {k}", "E = 'K + ' + '1'", "%%asset a\na = eval(E)"] for k in (1, 3)], ["a"]),
    Case("exec_in_the_cell", [[f"K = {k}", "E = 'r = K + 1'", "%%asset a\nexec(E)\na = r"] for k in (1, 3)], ["a", "r"]),
    Case("name_from_globals", [[f"K = {k}", "%%asset a\na = globals()['K'] * 2"] for k in (1, 3)], ["a"]),
    Case(
        "text_formatted_with_globals",
        [[f"K = {k}", "%%asset a\na = '{K}!'.format_map(globals())"] for k in (1, 3)],
        ["a"],
    ),
    Case(
        "formula_calls_a_function",
        [
            [
                "import pandas as pd, statsmodels.formula.api as smf\ndata = pd.DataFrame({'x': [1.0, 2.0, 3.0, 5.0], 'y': [1.0, 4.0, 9.0, 25.0]})",
                f"def bend(x):\n    return x ** {power}",
                "F = 'y ~ bend(x)'",
                "def fit(text):\n    return smf.ols(text, data=data).fit()",
                "%%asset fitted\nfitted = [round(float(p), 6) + 0 for p in fit(F).params]",
            ]
            for power in (2, 3)
        ],
        ["fitted"],
    ),
    Case(
        "formula_reads_a_variable",
        [
            [
                "import numpy as np, patsy\nx = np.arange(4.0)",
                f"shift = {k}",
                "def design(text):\n    return np.asarray(patsy.dmatrix(text))",
                "%%asset total\ntotal = float(design('x + I(x + shift)').sum())",
            ]
            for k in (1, 3)
        ],
        ["total"],
    ),
    Case(
        "module_imported_by_name",
        [["import importlib", "NAME = 'tools'", "%%asset a\na = importlib.import_module(NAME).f()"]] * 2,
        ["a"],
        files=[{"tools.py": "def f():\n    return 1\n"}, {"tools.py": "def f():\n    return 2\n"}],
    ),
    Case(
        "query_in_the_cell",
        [[TEN, f"limit = {k}", "%%asset some\nsome = len(frame.query('v > @limit'))"] for k in (3, 6)],
        ["some"],
    ),
    Case(
        "frame_that_the_step_changes_and_then_names_in_a_statement",
        [
            [
                "import pandas as pd, duckdb\nf = pd.DataFrame({'v': [2, 4]})\ndef total():\n    return duckdb.sql('select sum(v) + count(w) from f').fetchall()[0][0]",
                "%%asset a\nf['w'] = 1\na = int(duckdb.sql('select sum(w) from f').fetchall()[0][0]) + int(total())",
            ]
        ]
        * 2,
        ["a", "list(f.columns)"],
        reused=["a"],
    ),
    # All variables at once.
    *[
        Case(f"all_variables_{name}", [[f"K = {k}", f"%%asset a\na = {text}"] for k in (1, 2)], ["a"])
        for name, text in {"formatted": "'%(K)s' % vars()", "read": "vars()['K']"}.items()
    ],
    Case(
        "variables_of_an_object",
        [["class Box:\n    x = 1\nbox = Box()\nbox.y = 2", "%%asset a\na = vars(box)['y']"]] * 2,
        ["a"],
        reused=["a"],
    ),
    # Names in a pickle.
    Case(
        "class_in_a_pickle",
        [
            [
                f"import pickle\nclass Price:\n    def __init__(self, x):\n        self.x = x\n    def total(self):\n        return self.x * {k}",
                "with open('price.pkl', 'wb') as f:\n    pickle.dump(Price(5), f)",
                "%%asset a\nwith open('price.pkl', 'rb') as f:\n    a = pickle.load(f).total()",
            ]
            for k in (2, 3, 3)
        ],
        ["a"],
        reused=["a"],
    ),
    # Tests that find the notebook's functions and classes.
    Case(
        "doctests",
        [
            [
                "import doctest\ndef g(x):\n    '''\n    >>> g(2)\n    4\n    '''\n    return x * 2",
                "%%asset a\na = doctest.testmod().failed",
            ],
            [
                "import doctest\ndef g(x):\n    '''\n    >>> g(2)\n    4\n    '''\n    return x * 3",
                "%%asset a\na = doctest.testmod().failed",
            ],
        ],
        ["a"],
    ),
    Case(
        "unit_tests",
        [
            [
                "import unittest\ndef g(x):\n    return x * 2",
                "class T(unittest.TestCase):\n    def test_g(self):\n        self.assertEqual(g(2), 4)",
                "%%asset a\na = len(unittest.main(argv=[''], exit=False, verbosity=0).result.failures)",
            ],
            [
                "import unittest\ndef g(x):\n    return x * 3",
                "class T(unittest.TestCase):\n    def test_g(self):\n        self.assertEqual(g(2), 4)",
                "%%asset a\na = len(unittest.main(argv=[''], exit=False, verbosity=0).result.failures)",
            ],
        ],
        ["a"],
    ),
    Case(
        "attribute_named_main",
        [
            [
                "class R:\n    main = 2\nr = R()",
                "%%asset a\na = r.main",
            ]
        ]
        * 2,
        ["a"],
        reused=("a",),
    ),
    # Unit tests that are found by names.
    Case(
        "unit_tests_by_name",
        [
            [
                "def f(x): return x+1",
                "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)",
                "%%asset s\nimport io\nr=unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromNames(['__main__.T']))\ns=r.testsRun, len(r.failures), len(r.errors)",
            ],
            [
                "def f(x): return x+1",
                "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)",
                "%%asset s\nimport io\nr=unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromNames(['__main__.T']))\ns=r.testsRun, len(r.failures), len(r.errors)",
            ],
            [
                "def f(x): return x+2",
                "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)",
                "%%asset s\nimport io\nr=unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromNames(['__main__.T']))\ns=r.testsRun, len(r.failures), len(r.errors)",
            ],
            [
                "def f(x): return x+2",
                "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)",
                "%%asset s\nimport io\nr=unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromNames(['__main__.T']))\ns=r.testsRun, len(r.failures), len(r.errors)",
            ],
            [
                "def f(x): return x+1",
                "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)",
                "%%asset s\nimport io\nr=unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromNames(['__main__.T']))\ns=r.testsRun, len(r.failures), len(r.errors)",
            ],
        ],
        ["s"],
    ),
    Case(
        "unit_tests_by_an_imported_main",
        [
            [
                "def f(x): return x+1",
                "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)",
                "%%asset s\nfrom unittest import main, TextTestRunner\nimport io\nt=main(argv=['x'], exit=False, testRunner=TextTestRunner(stream=io.StringIO()))\ns=t.result.testsRun, len(t.result.failures)",
            ],
            [
                "def f(x): return x+1",
                "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)",
                "%%asset s\nfrom unittest import main, TextTestRunner\nimport io\nt=main(argv=['x'], exit=False, testRunner=TextTestRunner(stream=io.StringIO()))\ns=t.result.testsRun, len(t.result.failures)",
            ],
            [
                "def f(x): return x+2",
                "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)",
                "%%asset s\nfrom unittest import main, TextTestRunner\nimport io\nt=main(argv=['x'], exit=False, testRunner=TextTestRunner(stream=io.StringIO()))\ns=t.result.testsRun, len(t.result.failures)",
            ],
            [
                "def f(x): return x+2",
                "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)",
                "%%asset s\nfrom unittest import main, TextTestRunner\nimport io\nt=main(argv=['x'], exit=False, testRunner=TextTestRunner(stream=io.StringIO()))\ns=t.result.testsRun, len(t.result.failures)",
            ],
            [
                "def f(x): return x+1",
                "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)",
                "%%asset s\nfrom unittest import main, TextTestRunner\nimport io\nt=main(argv=['x'], exit=False, testRunner=TextTestRunner(stream=io.StringIO()))\ns=t.result.testsRun, len(t.result.failures)",
            ],
        ],
        ["s"],
    ),
]
