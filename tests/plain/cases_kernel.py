"""Cells that are run again, or edited, in one kernel."""

from oracle import Case


def run_all(*cells):
    """Return the cells with ids, so that a run can repeat them."""
    return [(f"c{at}", text) for at, text in enumerate(cells)]


def edited(cells, **texts):
    """Return the cells with some texts replaced."""
    return [(name, texts.get(name, text)) for name, text in cells]


SIMPLE = run_all("K = 3", "%%asset a\na = K * 2", "%%asset b\nb = a + 1", "n = b")
EFFECT = run_all(
    "log = []",
    "%%asset a\nlog.append('a')\na = len(log)",
    "%%asset b\nlog.append('b')\nb = len(log)",
    "seen = list(log)",
)
SEEDED = run_all(
    "import numpy as np\nnp.random.seed(3)",
    "%%asset x\nx = float(np.random.rand())",
    "%%asset y\ny = float(np.random.rand())",
    "z = float(np.random.rand())",
)
FRAMES = run_all(
    "import pandas as pd",
    "%%asset df\ndf = pd.DataFrame({'v': [1.0, None, 3.0]})",
    "df = df.dropna()",
    "df['w'] = df.v * 2",
    "%%asset total\ntotal = float(df.w.sum())",
)
CHAIN = run_all(
    "%%asset numbers -> x\nx = [3, 1, 2]", "%%asset ordered -> x\nx = sorted(x)", "%%asset top -> x\nx = x[-1]", "y = x"
)
FILES = run_all(
    "K = 1",
    "%%asset saved\nopen('out.txt', 'w').write(str(K))\nsaved = 1",
    "%%asset back -d saved\nback = open('out.txt').read()",
    "there = open('out.txt').read()",
)
NAMES = run_all(
    "K = 2",
    "%%asset model\nrows = [1, 2, K]\ndef double(x):\n    return x * 2\nmodel = len(rows)",
    "%%asset score\nscore = double(rows[-1])",
    "n = double(5), rows",
)
AGAIN = run_all("n = 3", "%%asset a\na = 'x' * n", "n = 2", "%%asset b\nb = a * n")

CLOSURE = run_all(
    "def make():\n    n = 3\n    def step():\n        nonlocal n\n        n += 1\n        return n\n    return step\ntick = make()",
    "%%asset a\na = tick()",
    "b = tick()",
)
SECONDARY = run_all("%%asset a\nparts = [1, 2]\na = len(parts)", "other = parts\nother.append(9)", "n = len(parts)")
ALIAS = run_all("class T:\n    v = 1", "%%asset a\nA = T\nkinds = [T]\nmade = A()\na = made.v", "b = a")
ITERATOR = run_all("numbers = iter(range(5, 90))", "%%asset a\na = next(numbers)", "b = next(numbers)")
OPTION = run_all(
    "import pandas as pd\npd.set_option('display.max_rows', 11)",
    "%%asset a\npd.set_option('display.max_rows', 22)\na = 1",
    "seen = pd.get_option('display.max_rows')\npd.set_option('display.max_rows', 33)",
)
OPTIONS = run_all(
    "import decimal, os, random, sys, warnings\nimport numpy as np\nimport pandas as pd\nK = 1",
    "%%asset a\npd.set_option('display.max_rows', 22)\nnp.random.seed(4)\nrandom.seed(5)\nnp.seterr(divide='ignore')\n"
    "os.environ['PLAIN_CASE'] = 'set'\ndecimal.getcontext().prec = 9\nwarnings.simplefilter('ignore', FutureWarning)\n"
    "sys.path.append('there')\npd.DataFrame.total = lambda self: 3\na = K",
)
EDITED_OPTIONS = edited(OPTIONS, c0=OPTIONS[0][1].replace("K = 1", "K = 2"))
OPTIONS_WATCHED = [
    "a",
    "pd.get_option('display.max_rows')",
    "np.random.random(), random.random()",
    "np.geterr()['divide']",
    "os.environ.get('PLAIN_CASE')",
    "decimal.getcontext().prec",
    "[each[2].__name__ for each in warnings.filters].count('FutureWarning')",
    "sys.path.count('there')",
    "hasattr(pd.DataFrame, 'total')",
]
CHANGED_LATER = {
    "file": (
        "open('f.txt', 'w').write('1 ')",
        "len(open('f.txt').read())",
        "with open('f.txt', 'a') as f: f.write('2 ')",
    ),
    "listing": ("os.makedirs('parts', exist_ok=True)", "len(os.listdir('parts'))", "open('parts/one', 'w').close()"),
    "glob": ("open('1.csv', 'w').close()", "len(glob.glob('*.csv'))", "open('2.csv', 'w').close()"),
    "absent": ("there = 'none'", "os.path.exists(there)", "open('none', 'w').close()"),
    "environment": ("os.environ['PLAIN'] = 'x'", "os.environ['PLAIN']", "os.environ['PLAIN'] = 'y'"),
    "option": (
        "pd.set_option('display.precision', 3)",
        "repr(pd.Series([1 / 3]))",
        "pd.set_option('display.precision', 5)",
    ),
    "folder": ("os.makedirs('sub', exist_ok=True)", "os.path.basename(os.getcwd()) == 'sub'", "os.chdir('sub')"),
    "child": (
        "open('f.txt', 'w').write('1 ')",
        "len(open('f.txt').read())",
        "subprocess.run('echo 2 >> f.txt', shell=True)",
    ),
}


def changed_later(kind):
    """Return the cells of a notebook in which a plain cell changes what an asset cell has read before."""
    first, read, later = CHANGED_LATER[kind]
    return run_all(
        "import glob, os, subprocess\nimport pandas as pd",
        first,
        f"%%asset a\na = [{read}]",
        "%%asset c\nc = [a, 1]",
        later,
        "%%asset b\nb = [a, c]",
        "n = b",
    )


UNSTORED_ROWS = run_all("K = 1", "%%asset a\nrows = (x for x in (1, 2))\na = K", "n = next(rows)")
COUNTED = run_all(
    "%%asset a\nclass Box:\n    count = 1\na = Box.count", "Box.count += 5", "%%asset b\nb = Box.count", "n = Box.count"
)
LOOPED = run_all("parts = [3, 4]", "%%asset a\na = 0\nfor i in parts: a += i\ni += 1", "n = i")
OWN_TEXT = run_all(
    "import pandas as pd\nframe = pd.DataFrame({'v': [1, 5, 9]})\nlimit = 0",
    "%%asset a\nlimit = 4\na = len(frame.query('v > @limit'))\nlimit = 7",
    "%%asset b\nb = len(frame.query('v > @limit'))",
)
LOCKED = "import threading\nclass Held:\n    def __init__(self, v): self.v, self.lock = v, threading.Lock()"
APPENDED = run_all(
    "%%asset start\nopen('f.txt', 'w').write('4 ')\nstart = 1",
    "%%asset end\nwith open('f.txt', 'a') as f:\n    f.write(str(len(open('f.txt').read())) + ' ')\nend = 1",
    "text = open('f.txt').read()",
)
DRAWN = run_all(
    "import numpy as np\nnp.random.seed(7)",
    "%%asset a\nn = int(np.random.randint(1000))\na = [n]",
    "def first():\n    return a[0] > 0",
    "%%asset b\nb = (first(), int(np.random.randint(1000)))",
)
REDEFINED = run_all(
    "n = 1\ndef h(x):\n    return x * 6",
    "%%asset a\nn += 1\na = h(n)",
    "k = [6, 8]",
    "%%asset b\ndef h(x):\n    return x * 2 + k[0]\nb = a + h(1)",
    "%%asset c\nc = a + b",
)

RAW = "%%asset raw\nraw = [3, 1, 2]"
SORTED = "%%asset c --drop raw\nraw = sorted(raw)\nc = raw[0]"
TAKEN = "%%asset c --drop t\nt = sorted(t)\nc = t[0]"
HELPER = "def helper():\n    return list(raw)"

HANDLES = {
    "files_of_with_statements": ("with open('log', 'a') as f:\n    f.write('{}')", "n = open('log').read()"),
    "closed_files": ("f = open('log', 'a')\nf.write('{}')\nf.close()", "n = open('log').read()"),
    "zip_files": (
        "import zipfile\nwith zipfile.ZipFile('log', 'a') as f:\n    f.writestr('{}', '')",
        "import zipfile\nn = zipfile.ZipFile('log').namelist()",
    ),
    "closed_sqlite_connections": (
        (
            "import sqlite3\nf = sqlite3.connect('log')\nf.execute('create table if not exists t(x)')\n"
            "f.execute(\"insert into t values ('{}')\")\nf.commit()\nf.close()"
        ),
        "import sqlite3\nn = sqlite3.connect('log').execute('select * from t').fetchall()",
    ),
    "closed_duckdb_connections": (
        (
            "import duckdb\nf = duckdb.connect('log')\nf.execute('create table if not exists t(x varchar)')\n"
            "f.execute(\"insert into t values ('{}')\")\nf.close()"
        ),
        "import duckdb\nd = duckdb.connect('log')\nn = d.execute('select * from t').fetchall()\nd.close()",
    ),
}
"""Code that opens a file or database, adds something to it and closes it; and code that reads everything that was added."""


def closed_handles(name, first, second):
    """Return the cells of a notebook in which two asset cells bind one variable to a file or connection that they close."""
    add, read = HANDLES[name]
    return run_all(
        "import os\nif os.path.exists('log'): os.remove('log')",
        f"%%asset first\n{add.format(first)}\nfirst = 1",
        f"%%asset second\n{add.format(second)}\nsecond = 1",
        read,
    )


CASES = [
    Case("closure_counts_on", [CLOSURE, CLOSURE, CLOSURE * 2], ["a", "b"], reused=["a"]),
    Case("secondary_changed_through_an_alias", [SECONDARY * 2, SECONDARY], ["parts", "n", "other is parts"], reused=["a"]),
    Case(
        "alias_of_a_class_that_is_defined_again", [ALIAS * 2, ALIAS], ["A is T", "kinds[0] is T", "type(made) is T"], reused=["a"]
    ),
    Case(
        "iterator_made_of_a_variable_under_its_name",
        [run_all("df = [1, 2, 3]", "%%asset clean -> df\ndf = (x for x in df)", "n = list(df)")] * 2,
        ["n", "list(df)"],
        says=r"clean: executed .* because .*once in every kernel",
    ),
    Case(
        "connection_that_is_the_only_effect_and_is_only_read",
        [
            run_all("import sqlite3", "%%asset con\ncon = sqlite3.connect(':memory:')", "n = con.execute('select 1').fetchall()")
            * times
            for times in (1, 2)
        ],
        ["n"],
        reused=["con"],
    ),
    *[
        Case(
            f"connection_of_a_cell_{place}",
            [
                run_all(
                    *cells,
                    "con.execute('create table if not exists t (a)')\ncon.execute('insert into t values (1)')",
                    "n = con.execute('select * from t').fetchall()",
                )
                * times
                for times in (1, 2)
            ],
            ["n"],
        )
        for place, cells in {
            "with_the_import": ["%%asset con\nimport sqlite3\ncon = sqlite3.connect(':memory:')"],
            "without_the_import": ["import sqlite3", "%%asset con\ncon = sqlite3.connect(':memory:')"],
        }.items()
    ],
    Case(
        "helper_that_reads_a_variable_with_another_key",
        [run_all(f"%%asset a -> v\nv = [{k}]", "def f():\n    return v[0]", "%%asset e\ne = f()") for k in (1, 2)],
        ["v", "e"],
    ),
    Case(
        "dropped_variable_under_the_name_of_an_input",
        [
            run_all(
                "%%asset raw -> rows\nrows = [1, None, 3]",
                "%%asset c --drop rows\nrows = [x for x in rows if x]\nc = len(rows)",
                "out = len(rows)",
            )
        ]
        * 2,
        ["c", "rows", "out"],
    ),
    *[
        Case(f"dropped_variable_{place}", [run_all(*cells, f"d += [{k}]") for k in (1, 1, 2)], ["c", "d", "raw"], reused=["d"])
        for place, cells in {
            "of_an_asset_that_a_cell_reads": [RAW, SORTED, "%%asset d\nd = list(raw)"],
            "of_an_asset_that_a_helper_reads": [RAW, HELPER, SORTED, "%%asset d\nd = helper()"],
            "of_an_asset_that_a_method_reads": [
                RAW,
                "class Reader:\n    def read(self):\n        return list(raw)",
                SORTED,
                "%%asset d\nd = Reader().read()",
            ],
            "under_the_key_of_its_cell": [
                "%%asset raw -> c --drop raw\nraw = [3, 1, 2]\nc = len(raw)",
                "%%asset d\nd = list(raw)",
            ],
            "of_a_multi_asset": [
                RAW,
                "%%multi_asset b c --drop raw\nraw = sorted(raw)\nb = 1\nc = 2",
                "%%asset d\nd = list(raw)",
            ],
            "that_another_cell_drops_again": [
                RAW,
                SORTED,
                "%%asset e --drop raw\nraw = raw + [7]\ne = len(raw)",
                "%%asset d\nd = list(raw)",
            ],
            "that_the_cell_reads_itself": ["raw = [3, 1, 2]", SORTED, "%%asset d\nd = list(raw)"],
        }.items()
    ],
    *[
        Case(
            f"dropped_variable_that_its_cell_reads_{place}",
            [run_all(*cells)] * 2,
            ["c", "t"],
            says=r"c: executed .* because the variable t is not stored, and the step needs",
        )
        for place, cells in {
            "and_that_an_alias_changes": ["t = [3, 1, 2]\nother = t", TAKEN, "other.append(0)", "d = list(t)"],
            "and_that_a_view_changes": [
                "import numpy as np\nt = np.arange(3)\nview = t[:]",
                TAKEN,
                "view[0] = 100",
                "%%asset d\nd = t[0]",
            ],
            "and_that_is_a_number": ["t = 3", "%%asset c --drop t\nt = t + 1\nc = t * 2", "t = 0"],
        }.items()
    ],
    Case(
        "dropped_variable_of_a_cell_that_runs_twice",
        [run_all("%%asset c --drop big\nbig = [1] * 5\nc = 3") * 2] * 2,
        ["c"],
        reused=["c"],
    ),
    Case(
        "dropped_alias_in_a_second_run_all",
        [run_all("first = [3]", "%%asset c --drop other\nother = first\nc = len(other)", "same = other is first") * 2] * 2,
        ["c", "first", "same"],
    ),
    Case(
        "file_of_a_cell_that_counts_in_a_second_run_all",
        [
            run_all(
                "box = [0]",
                "%%asset c\nwith open('out.txt', 'w') as file: file.write('x')\nbox[0] += 1\nc = box[0]",
                "box.append(5)\nlength = len(box)",
            )
            * 2
        ]
        * 2,
        ["c", "box", "length"],
    ),
    Case(
        "number_that_an_earlier_cell_binds_again_to_the_same_value",
        [
            run_all(
                "%%asset a -> parts\nn = 3\nparts = [1, 2]",
                "%%asset b\nb = [*parts, n]",
                "%%asset c -> n\nrest = b[1:]\nn = 3",
            )
            * 2
        ],
        ["n", "b", "rest"],
    ),
    Case(
        "second_output_without_a_stored_form",
        [
            run_all(
                "class Unstorable:\n    v = 7\n    def __reduce__(self):\n        raise TypeError('no')",
                "%%multi_asset a b\na = 1\nb = Unstorable()",
                "%%asset d\nd = b.v + 1",
            )
        ]
        * 2,
        ["a", "d"],
        reused=["a b", "d"],
        never="runs again",
    ),
    Case(
        "dropped_variable_that_an_edited_cell_no_longer_binds",
        [
            run_all(RAW, SORTED),
            [
                *run_all(RAW, SORTED),
                ("c1", "%%asset c\nc = 5"),
                *[(f"d{k}", f"%%asset d{k}\nd{k} = [*raw, {k}]") for k in (1, 2)],
            ],
        ],
        ["c", "d1", "d2"],
        never="runs again",
    ),
    Case(
        "iterator_made_again",
        [ITERATOR * 2, ITERATOR],
        ["a", "b"],
        says=r"a: executed .* because .*once in every kernel",
    ),
    Case("option_set_again", [OPTION * 2, OPTION * 2], ["seen"], reused=["a"]),
    Case(
        "option_set_to_what_it_is_by_a_cell_that_runs_again",
        [OPTIONS + EDITED_OPTIONS, EDITED_OPTIONS],
        OPTIONS_WATCHED,
        reused=["a"],
    ),
    Case(
        "option_set_to_what_it_is_by_a_cell_that_was_edited",
        [OPTIONS + edited(OPTIONS, c1=OPTIONS[1][1] + " + 1"), edited(OPTIONS, c1=OPTIONS[1][1] + " + 1")],
        OPTIONS_WATCHED,
        reused=["a"],
    ),
    Case(
        "option_no_longer_set_by_a_cell_that_was_edited",
        [OPTIONS + edited(OPTIONS, c1="%%asset a\na = K"), edited(OPTIONS, c1="%%asset a\na = K")],
        OPTIONS_WATCHED,
        reused=["a"],
    ),
    Case(
        "option_no_longer_set_by_a_cell_that_was_reused",
        [OPTIONS, OPTIONS + edited(OPTIONS, c1="%%asset a\na = K"), edited(OPTIONS, c1="%%asset a\na = K")],
        OPTIONS_WATCHED,
        reused=["a"],
    ),
    Case(
        "unstorable_variable_of_a_cell_edited_back_and_forth",
        [
            [
                *UNSTORED_ROWS,
                ("c1", "%%asset a\nrows = (x for x in (7, 8))\na = 2"),
                UNSTORED_ROWS[2],
                *UNSTORED_ROWS[1:],
            ],
            UNSTORED_ROWS * 2,
        ],
        ["n"],
    ),
    *[
        Case(
            f"{kind}_changed_by_a_later_cell",
            [changed_later(kind) * (1 if kind in {"folder", "absent", "listing", "glob"} else 2)],
            ["a", "b", "n"],
        )
        for kind in CHANGED_LATER
    ],
    *[
        Case(
            f"{kind}_changed_by_a_later_cell_and_by_an_edit",
            [changed_later(kind)[:-2] + edited(changed_later(kind), c1=edit)],
            ["a", "b", "n"],
        )
        for kind, edit in {
            "file": "open('f.txt', 'w').write('12345 ')",
            "environment": "os.environ['PLAIN'] = 'z'",
            "option": "pd.set_option('display.precision', 7)",
        }.items()
    ],
    Case(
        "file_written_by_an_edited_step_and_read_by_another",
        [
            [
                *run_all(
                    "n = 400",
                    "%%asset a2 -> n\nopen('f.txt', 'w').write(str(n) + ' ')\nn = 7",
                    "%%asset a3 -> d\nd = [len(open('f.txt').read())]",
                    "m = d",
                ),
                ("c0", "n = 1200"),
                ("c1", "%%asset a2 -> n\nopen('f.txt', 'w').write(str(n) + ' ')\nn = 7"),
                ("c2", "%%asset a3 -> d\nd = [len(open('f.txt').read())]"),
                ("c3", "m = d"),
            ]
        ],
        ["d", "n", "m"],
    ),
    Case(
        "class_of_a_value_defined_again",
        [run_all("class Box:\n    def __init__(self, v): self.v = v", "%%asset a\na = Box(3)", "n = isinstance(a, Box)") * 2] * 2,
        ["n", "isinstance(a, Box)"],
        reused=["a"],
    ),
    Case(
        "instance_of_a_class_whose_attribute_the_cell_changes",
        [
            run_all(
                "class Box:\n    count = 7\n    def __init__(self, v): self.v = v",
                "%%multi_asset a b\nBox.count += 1\na = Box(Box.count)\nb = [a]",
                "n = isinstance(a, Box), isinstance(b[0], Box), a.count",
            )
        ]
        * 2,
        ["n"],
        reused=["a", "b"],
        never="copy",
    ),
    Case(
        "file_that_its_reader_overwrites",
        [
            run_all(
                "open('f.txt', 'w').write('123 ')",
                "%%asset a\na = [len(open('f.txt').read())]\nopen('f.txt', 'w').write('1 ')",
                "%%asset b\nb = [a, len(open('f.txt').read())]",
            )
            * 2
        ],
        ["a", "b", "open('f.txt').read()"],
    ),
    Case(
        "file_changed_by_a_later_step",
        [
            run_all(
                "open('f.txt', 'w').write('1 ')",
                "%%asset a\na = [len(open('f.txt').read())]",
                "%%asset c\nwith open('f.txt', 'a') as f: f.write('2 ')\nc = 1",
                "%%asset b\nb = [a, c]",
            )
            * 2
        ],
        ["a", "b", "open('f.txt').read()"],
    ),
    Case(
        "file_changed_by_a_later_cell_and_its_reader_run_again",
        [[*changed_later("file"), changed_later("file")[2], changed_later("file")[5]]],
        ["a"],
        sequence=True,
    ),
    Case("class_attribute_counted_up_again", [COUNTED * 2, COUNTED], ["a", "b", "n"], reused=["a", "b"]),
    Case("loop_variable_that_may_be_read", [LOOPED * 2, LOOPED * 2], ["a", "i", "n"], reused=["a"]),
    Case("text_names_a_variable_of_its_own_cell", [OWN_TEXT * 2, OWN_TEXT], ["a", "b", "limit"], reused=["a", "b"]),
    Case(
        "equal_value_assigned_again",
        [
            [
                *run_all("K = 3\nopen('a.txt', 'w').write('3 ')", "%%asset a\nsize = len(open('a.txt').read())\na = size"),
                ("c0", "K = 6\nopen('a.txt', 'w').write('6 ')"),
                ("c1", "%%asset a\nsize = len(open('a.txt').read())\na = size"),
            ],
            run_all("K = 6\nopen('a.txt', 'w').write('6 ')", "%%asset a\nsize = len(open('a.txt').read())\na = size"),
        ],
        ["size", "a"],
        reused=["a"],
    ),
    Case(
        "unstored_variable_needed_after_its_input_changed",
        [[LOCKED, "parts = [1, 2]", "%%asset a\nheld = Held(sum(parts))\na = held.v", "parts.append(30)", "n = held.v"]] * 2,
        ["a", "n"],
    ),
    Case(
        "unstored_variable_of_a_cell_that_acts",
        [[LOCKED, "parts = [1, 2]", "%%asset a\nparts.append(3)\nheld = Held(sum(parts))\na = held.v", "n = held.v"]] * 2,
        ["a", "n", "parts"],
        says="held",
    ),
    Case(
        "unstored_value_changed_by_a_cell",
        [[LOCKED, "%%asset a\na = Held(1)", "a.v = 5", "%%asset b\nb = a.v", "a.v = 7", "%%asset c\nc = a.v"]] * 2,
        ["a.v", "b", "c"],
    ),
    Case(
        "only_what_is_missing_is_bound_when_a_cell_runs_for_it",
        [
            [
                LOCKED,
                "%%asset a\nn, parts = 1, [2]\nheld = Held(n)\na = [held.v]",
                "n += 1\nparts.append(n)\na.append(5)",
                "m = held.v",
            ]
        ]
        * 2,
        ["n", "parts", "a", "m"],
    ),
    Case(
        "objects_that_are_shared_with_what_is_bound_again",
        [run_all("%%asset a\nparts = [1]\na = 1", "%%asset b\npair = (parts, 2)\nb = {'sub': parts}", "parts.append(3)") * 2] * 2,
        ["parts", "pair[0] is parts", "b['sub'] is parts"],
        reused=["a", "b"],
    ),
    Case(
        "what_a_cell_changed_in_what_it_defined",
        [
            [
                "%%asset a\ndef note(x, seen=[]):\n    seen.append(x)\n    return len(seen)\nclass Box:\n    count = 1\n    kept = []\nBox.count += 5\nBox.kept.append(note(3))\na = note(4)",
                "%%asset b\nb = (note(1), Box.count, Box.kept)",
                "n = note(2)",
            ]
        ]
        * 2,
        ["a", "b", "n", "Box.count", "Box.kept"],
        reused=["a", "b"],
    ),
    Case(
        "variable_that_a_cell_keeps_and_binds_again",
        [run_all("%%asset a -> box\nbox = {1}", "%%asset b -> box\nold = box\nold.add(5)\nbox = {3, max(old)}") * 2] * 2,
        ["box", "old"],
        reused=["a", "b"],
    ),
    Case(
        "line_added_to_a_file_in_another_state",
        [
            [
                *run_all(
                    "%%asset a\nwith open('a.txt', 'w') as f: f.write('1 ')",
                    "%%asset b\nwith open('a.txt', 'a') as f: f.write('2 ')",
                    "n = open('a.txt').read()",
                ),
                ("c1", "%%asset b\n# again\nwith open('a.txt', 'a') as f: f.write('2 ')"),
            ],
            run_all(
                "%%asset a\nwith open('a.txt', 'w') as f: f.write('1 ')",
                "%%asset b\nwith open('a.txt', 'a') as f: f.write('2 ')",
                "n = open('a.txt').read()",
            ),
        ],
        ["n"],
    ),
    Case(
        "seed_of_an_asset_in_one_kernel",
        [
            [
                *run_all(
                    "%%asset a\nimport random\nrandom.seed(8)\na = 1",
                    "%%asset b\nb = random.random()",
                    "n = random.random()",
                ),
                *run_all(
                    "%%asset a\nimport random\nrandom.seed(8)\na = 1",
                    "%%asset b\nb = 1 + random.random()",
                    "n = random.random()",
                ),
            ]
        ]
        * 2,
        ["b", "n"],
        reused=["a", "b"],
    ),
    Case(
        "cell_run_alone_with_what_it_left_itself",
        [
            [
                *run_all("k = 1\nt = 'a'", "%%asset a\nt += 'x'\na = k"),
                ("c2", "k = 2"),
                ("c1", "%%asset a\nt += 'x'\na = k"),
                *run_all("k = 2\nt = 'a'", "%%asset a\nt += 'x'\na = k"),
            ]
        ]
        * 2,
        ["t", "a"],
    ),
    Case(
        "option_that_a_cell_reads",
        [
            [
                "import pandas as pd\nimport numpy as np",
                "pd.set_option('display.max_rows', 11)\nnp.set_printoptions(precision=5)",
                "%%asset a\na = pd.get_option('display.max_rows')",
                "%%asset b\nb = np.get_printoptions()['precision']",
                "%%asset c\nc = pd.options.display.max_rows",
            ],
            [
                "import pandas as pd\nimport numpy as np",
                "pd.set_option('display.max_rows', 12)\nnp.set_printoptions(precision=6)",
                "%%asset a\na = pd.get_option('display.max_rows')",
                "%%asset b\nb = np.get_printoptions()['precision']",
                "%%asset c\nc = pd.options.display.max_rows",
            ],
        ],
        ["a", "b", "c"],
    ),
    *[
        Case(
            f"connection_of_a_cell_that_{name}",
            [
                run_all(
                    "import random, sqlite3\nrandom.seed(1)\nlog = []",
                    f"%%asset c\ncon = sqlite3.connect(':memory:')\ncon.execute('create table t as select 5 a')\n{change}\nc = len(log)",
                    "rows = con.execute('select * from t').fetchall()",
                    "drawn = random.random()",
                )
            ]
            * 2,
            ["c", "log", "rows", "drawn"],
            says="c: executed .* because the changes to con cannot be restored",
        )
        for name, change in {"changes_a_list": "log.append('made')", "draws": "x = random.random()"}.items()
    ],
    Case(
        "connection_that_a_with_statement_leaves_open",
        [
            run_all(
                "import sqlite3\nlog = []",
                "%%asset c\nwith sqlite3.connect(':memory:') as con:\n    con.execute('create table t as select 5 a')\nlog.append('made')\nc = 1",
                "rows = con.execute('select * from t').fetchall()",
            )
        ]
        * 2,
        ["c", "log", "rows"],
    ),
    Case(
        "file_handle_is_not_opened_again",
        [
            [
                "import random\nparts = [1, 2]\nrandom.seed(5)",
                "%%asset a\nwith open('a.txt', 'w') as f: f.write(str(random.random()))\na = sum(parts)",
                "%%asset b\nwith open('in.txt') as g: b = len(g.read()) + len(parts)",
                "parts.append(4)",
                "n = random.random()",
            ]
        ]
        * 2,
        ["a", "b", "parts", "n", "open('a.txt').read()"],
        reused=["a", "b"],
        never="runs again",
        files={"in.txt": "abc"},
    ),
    Case(
        "generator_read_by_an_asset",
        [run_all("%%asset a\na = (x * 6 for x in range(1, 9))", "%%asset b\nb = next(a)", "n = next(a)") * 2] * 2,
        ["b", "n"],
        says=r"b: executed .* because ",
    ),
    Case(
        "unstored_value_read_with_plain",
        [
            [
                "%%asset a\na = (x * 6 for x in range(1, 9))",
                "%%asset b --plain\nb = next(a)",
                "n = next(a)",
            ]
        ]
        * 2,
        ["b", "n"],
    ),
    Case(
        "variables_bound_and_changed_with_plain",
        [
            run_all(
                "%%asset rows\nrows = [3]",
                "%%multi_asset --plain more extra\nrows.append(len(rows))\nmore, extra = len(rows), 7",
                "%%asset total\ntotal = sum(rows) + extra",
            )
            * 2
        ]
        * 2,
        ["rows", "more", "total"],
        reused=["rows", "total"],
    ),
    Case("run_all_twice", [SIMPLE * 2], ["a", "b", "n"]),
    Case("run_all_twice_with_changes", [EFFECT * 2], ["a", "b", "seen", "log"]),
    Case("run_all_twice_with_a_seed", [SEEDED * 2, SEEDED * 2], ["x", "y", "z"], reused=["x", "y"]),
    Case("run_all_twice_with_frames", [FRAMES * 2, FRAMES * 2], ["total", "list(df)", "len(df)"], reused=["df", "total"]),
    Case("run_all_twice_with_a_chain", [CHAIN * 2, CHAIN * 2], ["y"], reused=["numbers", "ordered", "top"]),
    Case("run_all_twice_with_names_assigned_again", [AGAIN * 2, AGAIN * 2], ["a", "b", "n"], reused=["a", "b"]),
    Case("run_all_twice_with_files", [FILES * 2, FILES * 2], ["back", "there"], reused=["saved", "back"]),
    *[
        Case(
            f"run_all_twice_with_one_variable_for_{name}",
            [closed_handles(name, "p", "q") * 2, *[closed_handles(name, "r", "q") * 3] * 2],
            ["n"],
            reused=("first", "second"),
            never="may have changed",
        )
        for name in HANDLES
    ],
    Case(
        "run_all_twice_with_a_plain_cell_that_binds_the_file",
        [
            run_all(
                "import pathlib, math",
                "with open('log', 'w') as f: f.write('-')",
                "seen = [1]",
                "%%asset a\nwith open('log', 'a') as f: f.write('+')\na = [seen, math.pi]",
                "n = pathlib.Path('log').read_text()",
            )
            * times
            for times in (1, 2, 3)
        ],
        ["n"],
        reused=["a"],
        never="runs again",
    ),
    Case(
        "run_all_twice_with_a_generic_model",
        [
            run_all(
                "from typing import Generic, TypeVar\nfrom pydantic import BaseModel\nT = TypeVar('T')",
                "class Box(BaseModel, Generic[T]):\n    v: T",
                "%%asset box\nbox = Box[int](v=1)",
            )
            * 2
        ]
        * 2,
        ["isinstance(box, Box)", "type(box) is Box[int]"],
        reused=["box"],
    ),
    Case(
        "run_all_twice_with_functions_in_a_dict",
        [
            run_all(
                "def base(x):\n    return x + 1",
                "%%asset steps\nsteps = {'a': base, 'b': lambda x: base(x) * 2}",
                "%%asset used\nused = [f(1) for f in steps.values()]",
                "here = steps['a'] is base",
            )
            * 2
        ]
        * 2,
        ["used", "here"],
        reused=["steps", "used"],
    ),
    Case("asset_cell_run_again_after_its_change", [[*EFFECT, EFFECT[1], EFFECT[2]]], ["a", "b", "log", "seen"]),
    Case("asset_cell_run_again_after_its_draw", [[*SEEDED, SEEDED[1]]], ["x", "y", "z"]),
    Case("asset_cell_run_again_after_a_hit", [EFFECT, [*EFFECT, EFFECT[1]]], ["a", "b", "log", "seen"], reused=["a", "b"]),
    Case("last_cell_run_again", [[*FRAMES, FRAMES[4]], [*FRAMES, FRAMES[4]]], ["total"], reused=["df", "total"]),
    Case("middle_of_a_chain_run_again", [[*CHAIN, CHAIN[1], CHAIN[2]]], ["x"]),
    Case("value_edited_and_all_run", [SIMPLE + edited(SIMPLE, c0="K = 5")], ["a", "b", "n"]),
    Case("value_edited_and_last_run", [[*SIMPLE, ("c0", "K = 5"), SIMPLE[2], SIMPLE[3]]], ["b", "n"]),
    Case("asset_edited_and_all_run", [SIMPLE + edited(SIMPLE, c1="%%asset a\na = K * 10")], ["a", "b", "n"]),
    Case(
        "change_edited_and_all_run",
        [EFFECT + edited(EFFECT, c1="%%asset a\nlog.extend('aa')\na = len(log)")],
        ["a", "b", "log", "seen"],
    ),
    Case(
        "change_edited_back_and_forth",
        [EFFECT + edited(EFFECT, c1="%%asset a\nlog.extend('aa')\na = len(log)") + EFFECT],
        ["a", "b", "log", "seen"],
    ),
    Case(
        "list_of_the_notebook_edited_and_all_run",
        [EFFECT + edited(EFFECT, c0="log = ['start']")],
        ["a", "b", "log", "seen"],
    ),
    Case(
        "seed_edited_and_all_run",
        [SEEDED + edited(SEEDED, c0="import numpy as np\nnp.random.seed(4)")],
        ["x", "y", "z"],
    ),
    Case(
        "draw_edited_and_all_run",
        [SEEDED + edited(SEEDED, c1="%%asset x\nx = np.random.rand(2).tolist()")],
        ["x", "y", "z"],
    ),
    Case(
        "frame_edited_and_all_run",
        [FRAMES + edited(FRAMES, c1="%%asset df\ndf = pd.DataFrame({'v': [5.0, None]})")],
        ["total", "len(df)"],
    ),
    Case("plain_step_edited_and_all_run", [FRAMES + edited(FRAMES, c3="df['w'] = df.v * 3")], ["total", "list(df)"]),
    Case(
        "chain_edited_and_all_run",
        [CHAIN + edited(CHAIN, c1="%%asset ordered -> x\nx = sorted(x, reverse=True)")],
        ["y"],
    ),
    Case(
        "chain_edited_and_the_rest_run",
        [[*CHAIN, ("c0", "%%asset numbers -> x\nx = [30, 10]"), CHAIN[1], CHAIN[2], CHAIN[3]]],
        ["y"],
    ),
    Case("file_content_edited_and_all_run", [FILES + edited(FILES, c0="K = 2"), FILES], ["back", "there"]),
    Case(
        "function_inside_edited_and_all_run",
        [NAMES + edited(NAMES, c1="%%asset model\nrows = [1, 2, K]\ndef double(x):\n    return x * 20\nmodel = len(rows)")],
        ["score", "n"],
    ),
    Case("variable_inside_edited_and_all_run", [NAMES + edited(NAMES, c0="K = 7"), NAMES], ["score", "n", "model"]),
    Case(
        "function_inside_after_a_hit_and_an_edit",
        [NAMES, NAMES + edited(NAMES, c0="K = 7") + NAMES],
        ["score", "n", "model"],
    ),
    Case("name_assigned_again_then_first_run_again", [[*AGAIN, AGAIN[1]]], ["b", "n"]),
    Case("second_assignment_edited_and_below_run", [[*AGAIN, ("c2", "n = 4"), AGAIN[3]]], ["a", "b", "n"]),
    Case(
        "plain_cell_changes_then_asset_run_again",
        [
            [
                *run_all("%%asset a\na = [1]", "a.append(2)", "%%asset b\nb = sum(a)"),
                ("c3", "a.append(3)"),
                ("c2", "%%asset b\nb = sum(a)"),
            ]
        ],
        ["a", "b"],
        sequence=True,
    ),
    Case(
        "asset_cell_run_again_binds_its_value",
        [[*run_all("%%asset a\na = [1]", "a.append(2)", "n = list(a)"), ("c0", "%%asset a\na = [1]")]],
        ["a", "n"],
        sequence=True,
    ),
    Case(
        "unstorable_in_one_kernel",
        [run_all("import threading", "%%asset lock\nlock = threading.Lock()", "%%asset a\nwith lock:\n    a = 1", "n = a") * 2],
        ["n", "lock.locked()"],
    ),
    Case(
        "asset_cell_becomes_plain_with_the_same_value",
        [[("c0", "K = 1"), ("c1", "%%asset a\na = 't' * K"), ("c0", "K = 1"), ("c1", "a = 't' * K"), ("c2", "n = a")]],
        ["a", "n"],
    ),
    Case("cell_withdrawn", [[*SIMPLE, ("c1", "a = 10"), SIMPLE[2], SIMPLE[3]]], ["a", "b", "n"]),
    Case(
        "plain_cell_becomes_an_asset",
        [
            [
                ("c0", "K = 3"),
                ("c1", "a = K * 2"),
                ("c2", "%%asset b\nb = a + 1"),
                ("c1", "%%asset a\na = K * 2"),
                ("c2", "%%asset b\nb = a + 1"),
                ("c0", "K = 4"),
                ("c2", "%%asset b\nb = a + 1"),
            ]
        ],
        ["b"],
    ),
    Case(
        "appended_after_an_earlier_step_wrote_the_file_anew",
        [
            [
                *APPENDED,
                *edited(APPENDED, c1=APPENDED[1][1] + " + 1")[1:2],
                *edited(APPENDED, c1=APPENDED[1][1] + " + 1"),
            ]
        ],
        ["text", "end"],
    ),
    Case(
        "of_two_valid_results_the_one_of_this_kernel",
        [[*DRAWN, DRAWN[0], DRAWN[3], DRAWN[1], *DRAWN]],
        ["n", "a", "b"],
    ),
    Case("function_that_a_later_step_defines_again", [REDEFINED * 2] * 2, ["n", "a", "b", "c"], reused=["a", "b", "c"]),
    *[
        Case(
            f"closed_{name}_of_a_cell_that_changes_a_list",
            [
                [
                    "import csv, zipfile\nfrom concurrent.futures import ThreadPoolExecutor\nlog = []",
                    f"%%asset n\n{body}\nlog.append('x')",
                    "length = len(log)",
                ]
            ]
            * 3,
            ["n", "length"],
            reused=["n"],
        )
        for name, body in {
            "archive": "with zipfile.ZipFile('a.zip', 'w') as archive:\n    archive.writestr('a', 'b')\nn = 1",
            "writer": "with open('a.csv', 'w') as file:\n    writer = csv.writer(file)\n    writer.writerow([1])\nn = 1",
            "pool": "with ThreadPoolExecutor(2) as pool:\n    n = sum(pool.map(abs, [1, -2]))",
        }.items()
    ],
]
