"""State of libraries and of the process: edits of it count, and a cell that changes it has changed it after a hit too."""

from oracle import Case


def read(name, imports, states, value, reused=()):
    """A plain cell sets some state, which an asset reads."""
    return Case(
        name,
        [[imports, state, f"%%asset a\na = {value}", "%%asset n\nn = 3 * 2"] for state in states],
        ["a", "n"],
        reused=["n", *reused],
    )


def kept(name, imports, change, value, reused=True):
    """An asset cell sets some state, which a plain cell and an asset read."""
    cells = [imports, f"%%asset step\n{change}\nstep = 1", f"here = {value}", f"%%asset after\nafter = {value}"]
    return Case(name, [cells] * 2, ["here", "after"], reused=["step", "after"] if reused else ())


SHOWN = "repr(pd.DataFrame({'v': range(50)})).count('\\n')"
DIVIDED = (
    "def divided():\n    try:\n        return str(np.array([1.0]) / 0)\n    except FloatingPointError:\n        return 'raised'"
)
WARNED = "import warnings\ndef warned():\n    try:\n        warnings.warn('old', DeprecationWarning)\n        return 'went on'\n    except DeprecationWarning:\n        return 'raised'"
SCALED = "type(StandardScaler().fit_transform(pd.DataFrame({'a': [1.0, 2.0]}))).__name__"
SCALER = "import sklearn, pandas as pd\nfrom sklearn.preprocessing import StandardScaler"

CASES = [
    read(
        "sklearn_set_config",
        SCALER,
        [f"sklearn.set_config(transform_output='{kind}')" for kind in ("default", "pandas")],
        SCALED,
    ),
    Case(
        "magics_that_set_the_kernel_up",
        [
            [
                "%%asset step\n%config InteractiveShell.ast_node_interactivity = 'all'\nimport fractions\nstep = 1",
                "m = fractions.__name__, get_ipython().ast_node_interactivity",
                "%%asset last\nlast = 2\n%config InteractiveShell.ast_node_interactivity = 'last_expr'",
                "n = get_ipython().ast_node_interactivity",
            ]
        ]
        * 2,
        ["m", "n", "step"],
        reused=["step", "last"],
    ),
    Case(
        "working_directory",
        [
            [
                "import os",
                "os.makedirs('sub', exist_ok=True)",
                cell,
                "%%asset where\nwhere = os.path.basename(os.path.abspath('.')) == 'sub'",
            ]
            for cell in ("pass", "os.chdir('sub')")
        ],
        ["where"],
    ),
    read(
        "pandas_option",
        "import pandas as pd",
        [f"pd.set_option('display.max_rows', {rows})" for rows in (60, 10)],
        SHOWN,
    ),
    read(
        "pandas_option_by_attribute",
        "import pandas as pd",
        [f"pd.options.display.max_rows = {rows}" for rows in (60, 10)],
        SHOWN,
    ),
    read(
        "numpy_errors",
        "import numpy as np\n" + DIVIDED,
        [f"np.seterr(all='{how}')" for how in ("ignore", "raise")],
        "divided()",
    ),
    read(
        "numpy_print_options",
        "import numpy as np",
        [f"np.set_printoptions(precision={k})" for k in (2, 4)],
        "str(np.array([1 / 3]))",
    ),
    read(
        "scipy_errors",
        "import scipy.special as sc",
        [f"sc.seterr(singular='{how}')" for how in ("ignore", "raise")],
        "sc.geterr()['singular']",
    ),
    read(
        "decimal_precision",
        "import decimal",
        [f"decimal.getcontext().prec = {k}" for k in (5, 9)],
        "str(decimal.Decimal(1) / 3)",
    ),
    read(
        "integer_limit",
        "import sys\ndef shown():\n    try:\n        return len(str(10 ** 700))\n    except ValueError:\n        return 'refused'",
        [f"sys.set_int_max_str_digits({k})" for k in (4300, 640)],
        "shown()",
    ),
    read(
        "recursion_limit",
        "import sys\ndef deep(n):\n    return 0 if n == 0 else 1 + deep(n - 1)\ndef tried():\n    try:\n        return deep(2000)\n    except RecursionError:\n        return 'too deep'",
        [f"sys.setrecursionlimit({k})" for k in (1000, 9000)],
        "tried()",
    ),
    Case(
        "integer_limit_that_no_step_reaches",
        [
            [
                f"import sys\nsys.set_int_max_str_digits({k})",
                "xs = [3, 1, 2]",
                "%%asset a\na = sorted(xs)[0] + len(xs)",
                "%%asset b\nb = [a * x for x in range(3)]",
            ]
            for k in (0, 640)
        ],
        ["a", "b"],
        reused=["a", "b"],
    ),
    Case(
        "error_filter_for_one_message",
        [
            [
                WARNED,
                f"warnings.simplefilter('error')\nwarnings.filterwarnings('ignore', message='{text}')",
                "%%asset a\na = warned()",
                "%%asset b\nb = sum(range(5))",
            ]
            for text in ("old", "new")
        ],
        ["a", "b"],
        reused=["b"],
    ),
    Case(
        "warning_shown_before_the_step",
        [
            [
                WARNED,
                f"warnings.simplefilter('{how}')",
                "try:\n    warned()\nexcept Warning:\n    pass",
                "%%asset a\na = warned()",
            ]
            for how in ("default", "error")
        ],
        ["a"],
    ),
    Case(
        "warning_of_a_library_made_an_error",
        [
            [
                "import warnings, numpy as np",
                f"warnings.filterwarnings('{how}', category=RuntimeWarning)",
                "%%asset a\ntry:\n    a = str(np.log(np.array([-1.0])))\nexcept RuntimeWarning:\n    a = 'raised'",
                "%%asset b\nb = float(np.log(np.array([1.0]))[0])",
            ]
            for how in ("ignore", "error")
        ],
        ["a", "b"],
        reused=["b"],
    ),
    read("warnings_as_errors", WARNED, [f"warnings.simplefilter('{how}')" for how in ("ignore", "error")], "warned()"),
    read(
        "warnings_shown_or_not",
        WARNED,
        [f"warnings.simplefilter('{how}')" for how in ("ignore", "default")],
        "warned()",
        reused=["a"],
    ),
    read(
        "time_zone",
        "import os, time",
        [f"os.environ['TZ'] = '{zone}'\ntime.tzset()" for zone in ("UTC", "Asia/Tokyo")],
        "time.localtime(0).tm_hour",
    ),
    read(
        "environment_variable",
        "import os",
        [f"os.environ['MODE'] = '{mode}'" for mode in ("a", "b")],
        "os.environ['MODE']",
    ),
    read(
        "matplotlib_parameters",
        "import matplotlib.pyplot as plt",
        [f"plt.rcParams['figure.figsize'] = ({k}, 2)" for k in (4, 8)],
        "plt.figure().get_size_inches().tolist()",
    ),
    read(
        "matplotlib_style",
        "import matplotlib.pyplot as plt",
        [f"plt.style.use('{style}')" for style in ("default", "ggplot")],
        "plt.rcParams['axes.grid']",
    ),
    read(
        "colormap_registered",
        "import matplotlib as mpl\nfrom matplotlib.colors import ListedColormap",
        [f"mpl.colormaps.register(ListedColormap(['red', '{color}']), name='own', force=True)" for color in ("blue", "green")],
        "mpl.colormaps['own'](0.9)",
    ),
    read(
        "seaborn_theme",
        "import seaborn as sns, matplotlib.pyplot as plt",
        [f"sns.set_theme(style='{style}')" for style in ("white", "darkgrid")],
        "plt.rcParams['axes.grid']",
    ),
    read(
        "polars_config",
        "import polars as pl",
        [f"pl.Config.set_tbl_rows({k})" for k in (10, 2)],
        "str(pl.DataFrame({'a': range(8)})).count('\\n')",
    ),
    read(
        "csv_dialect",
        "import csv, io",
        [f"csv.register_dialect('own', delimiter='{mark}')" for mark in (";", "|")],
        "list(csv.reader(io.StringIO('a;b'), 'own'))",
    ),
    read(
        "csv_field_limit",
        "import csv, io\ndef rows():\n    try:\n        return list(csv.reader(io.StringIO('a' * 50)))\n    except csv.Error:\n        return 'too long'",
        [f"csv.field_size_limit({k})" for k in (100, 10)],
        "rows()",
    ),
    read(
        "sqlite_adapter",
        "import sqlite3\nclass P:\n    x = 3",
        [f"sqlite3.register_adapter(P, lambda p: p.x * {k})" for k in (1, 2)],
        "sqlite3.connect(':memory:').execute('select ?', (P(),)).fetchone()[0]",
    ),
    read(
        "mime_type",
        "import mimetypes",
        [f"mimetypes.add_type('text/{kind}', '.own')" for kind in ("one", "two")],
        "mimetypes.guess_type('a.own')[0]",
    ),
    read(
        "reducer_for_copies",
        "import copyreg, copy\nclass P:\n    def __init__(self, x):\n        self.x = x",
        [f"copyreg.pickle(P, lambda p: (P, (p.x * {k},)))" for k in (2, 3)],
        "copy.copy(P(1)).x",
    ),
    read(
        "first_weekday",
        "import calendar",
        [f"calendar.setfirstweekday({k})" for k in (0, 6)],
        "calendar.monthcalendar(2024, 2)[0][0]",
    ),
    read(
        "method_added_to_a_library_class",
        "import pandas as pd",
        [f"def total(self):\n    return int(self.v.sum()) * {k}\npd.DataFrame.total = total" for k in (1, 2)],
        "pd.DataFrame({'v': [1, 2]}).total()",
    ),
    read(
        "function_of_a_module_replaced",
        "import numpy as np",
        [f"old = getattr(np, 'own_mean', np.mean)\nnp.mean = lambda x, *a, **k: {k} * sum(x)" for k in (1, 2)],
        "np.mean([1, 2])",
    ),
    read(
        "method_replaced_that_a_library_calls",
        "import pandas as pd\nframe = pd.DataFrame({'v': [1, 2]})",
        [f"pd.DataFrame.__len__ = lambda self: {k}" for k in (7, 8)],
        "len(frame)",
    ),
    read(
        "method_set_by_name",
        "import pandas as pd\ndef add(cls, name, f):\n    setattr(cls, name, f)",
        [f"add(pd.Series, 'tot' + 'al', lambda self: int(self.sum()) * {k})" for k in (1, 2)],
        "pd.Series([1, 2]).total()",
    ),
    read(
        "method_set_by_a_decorator",
        "import pandas as pd\ndef method_of(cls):\n    def put(f):\n        setattr(cls, f.__name__, f)\n        return f\n    return put",
        [f"@method_of(pd.DataFrame)\ndef total(self):\n    return int(self.v.sum()) * {k}" for k in (1, 2)],
        "pd.DataFrame({'v': [1, 2]}).total()",
    ),
    read(
        "alias_set_on_a_library",
        "import numpy as np",
        [f"np.own = {kind}" for kind in ("float", "int")],
        "np.own(2.5)",
    ),
    Case(
        "helper_of_a_method_edited",
        [
            [
                "import pandas as pd",
                f"def factor():\n    return {k}",
                "def total(self):\n    return int(self.v.sum()) * factor()\npd.DataFrame.total = total",
                "%%asset frame\nframe = pd.DataFrame({'v': [1, 2]})",
                "%%asset a\na = frame.total()",
                "%%asset b\nb = int(frame.v.sum())",
            ]
            for k in (1, 2)
        ],
        ["a", "b"],
        reused=["frame", "b"],
    ),
    Case(
        "default_of_json_replaced",
        [
            [
                "import json",
                f"json.JSONEncoder.default = lambda self, o: {k}",
                "%%asset a\na = json.dumps({1, 2}.__class__) if False else json.dumps([object()])",
            ]
            for k in (1, 2)
        ],
        ["a"],
    ),
    Case(
        "patch_that_is_taken_back",
        [
            [
                "import numpy as np",
                f"kept = np.mean\nnp.mean = lambda x: {k}\nfirst = np.mean([1])\nnp.mean = kept",
                "%%asset a\na = float(np.mean([1, 2]))",
            ]
            for k in (1, 2)
        ],
        ["first", "a"],
        reused=["a"],
    ),
    Case(
        "patch_of_a_local_module",
        [["import pandas as pd\nimport fixes", "%%asset a\na = pd.DataFrame({'v': [1, 2]}).total()"]] * 2,
        ["a"],
        files=[
            {
                "fixes.py": f"import pandas as pd\ndef total(self):\n    return int(self.v.sum()) * {k}\npd.DataFrame.total = total\n"
            }
            for k in (1, 2)
        ],
    ),
    read(
        "polars_namespace_registered",
        "import polars as pl, warnings\nwarnings.simplefilter('ignore')",
        [
            f"@pl.api.register_dataframe_namespace('own')\nclass Own:\n    def __init__(self, df):\n        self.df = df\n    def total(self):\n        return self.df['v'].sum() * {k}"
            for k in (1, 2)
        ],
        "pl.DataFrame({'v': [1, 2]}).own.total()",
    ),
    read(
        "accessor_registered",
        "import pandas as pd, warnings\nwarnings.simplefilter('ignore')",
        [
            f"@pd.api.extensions.register_dataframe_accessor('own')\nclass Own:\n    def __init__(self, frame):\n        self.frame = frame\n    def total(self):\n        return int(self.frame.v.sum()) * {k}"
            for k in (1, 2)
        ],
        "pd.DataFrame({'v': [1, 2]}).own.total()",
    ),
    read(
        "dispatch_registered",
        "from functools import singledispatch\n@singledispatch\ndef show(x):\n    return 'any'",
        [f"@show.register\ndef _(x: int):\n    return 'int {k}'" for k in (1, 2)],
        "show(1)",
    ),
    read(
        "table_of_duckdbs_own_connection",
        "import duckdb",
        [f"duckdb.sql('create or replace table t as select {k} as v')" for k in (1, 2)],
        "duckdb.sql('select v from t').fetchall()",
    ),
    read(
        "view_and_macro_of_duckdbs_own_connection",
        "import duckdb\nduckdb.sql('create or replace table t as select 2 as v')",
        [
            f"duckdb.sql('create or replace macro times(x) as x * {k}')\nduckdb.sql('create or replace view w as select times(v) as v from t')"
            for k in (1, 2)
        ],
        "duckdb.execute('select v from w').fetchall()",
    ),
    Case(
        "other_table_of_duckdbs_own_connection",
        [
            [
                "import duckdb\ncon = 'no connection'",
                f"duckdb.sql('create or replace table t as select 1 as v')\nduckdb.default_connection().execute('create or replace table other as select {k} as v')\nNone",
                "%%asset a\na = duckdb.sql('select v from t').fetchall()",
                "%%asset b\nb = duckdb.sql('select 3').fetchall()",
            ]
            for k in (1, 2)
        ],
        ["a", "b"],
        reused=["a", "b"],
    ),
    read(
        "temporary_table_of_duckdbs_own_connection",
        "import duckdb",
        [f"duckdb.execute('create or replace temp table t as select {k} as v')\nNone" for k in (1, 2)],
        "duckdb.sql('select v from t').fetchall()",
    ),
    read(
        "frame_registered_with_duckdb",
        "import duckdb, pandas as pd",
        [f"duckdb.register('shown', pd.DataFrame({{'v': [{k}]}}))\nNone" for k in (1, 2)],
        "duckdb.sql('select v from shown').fetchall()",
    ),
    read(
        "setting_of_duckdbs_own_connection",
        "import duckdb",
        [f"duckdb.sql(\"set default_null_order = '{how}'\")" for how in ("nulls_first", "nulls_last")],
        "duckdb.sql('select v from (values (1), (null)) t(v) order by v').fetchall()",
    ),
    read(
        "view_of_a_connection_of_the_notebook",
        "import duckdb\ncon = duckdb.connect()",
        [f"con.execute('create view t as select {k} as v')" for k in (1, 2)],
        "con.execute('select v from t').fetchall()",
    ),
    Case(
        "module_search_path",
        [["import sys", f"sys.path.insert(0, '{folder}')", "%%asset a\nimport tools\na = tools.K"] for folder in ("one", "two")],
        ["a"],
        files={"one/tools.py": "K = 1\n", "two/tools.py": "K = 2\n"},
    ),
    Case(
        "option_within_a_block",
        [
            [
                "import pandas as pd",
                f"K = {k}",
                f"%%asset a\nwith pd.option_context('display.max_rows', K):\n    a = {SHOWN}",
                f"b = {SHOWN}",
            ]
            for k in (10, 20)
        ],
        ["a", "b"],
    ),
    kept("pandas_option_set_by_a_cell", "import pandas as pd", "pd.set_option('display.max_rows', 10)", SHOWN),
    kept(
        "numpy_print_options_set_by_a_cell",
        "import numpy as np",
        "np.set_printoptions(precision=2)",
        "str(np.array([1 / 3]))",
    ),
    kept("numpy_errors_set_by_a_cell", "import numpy as np\n" + DIVIDED, "np.seterr(all='raise')", "divided()"),
    kept(
        "decimal_precision_set_by_a_cell",
        "import decimal",
        "decimal.getcontext().prec = 5",
        "str(decimal.Decimal(1) / 3)",
    ),
    kept(
        "matplotlib_parameters_set_by_a_cell",
        "import matplotlib.pyplot as plt",
        "plt.rcParams.update({'figure.figsize': (4, 2), 'lines.linewidth': 3})",
        "plt.figure().get_size_inches().tolist()",
    ),
    kept(
        "matplotlib_style_set_by_a_cell",
        "import matplotlib.pyplot as plt",
        "plt.style.use('ggplot')",
        "plt.rcParams['axes.grid']",
    ),
    kept(
        "seaborn_theme_set_by_a_cell",
        "import seaborn as sns, matplotlib.pyplot as plt",
        "sns.set_theme(style='darkgrid')",
        "plt.rcParams['axes.grid']",
    ),
    kept(
        "colormap_registered_by_a_cell",
        "import matplotlib as mpl",
        "from matplotlib.colors import ListedColormap\nmpl.colormaps.register(ListedColormap(['red', 'blue']), name='own', force=True)",
        "mpl.colormaps['own'](0.9)",
    ),
    kept("sklearn_config_set_by_a_cell", SCALER, "sklearn.set_config(transform_output='pandas')", SCALED),
    kept(
        "polars_config_set_by_a_cell",
        "import polars as pl",
        "pl.Config.set_tbl_rows(2)",
        "str(pl.DataFrame({'a': range(8)})).count('\\n')",
    ),
    kept(
        "working_directory_set_by_a_cell",
        "import os\nos.makedirs('sub', exist_ok=True)",
        "os.chdir('sub')",
        "os.path.basename(os.getcwd())",
    ),
    kept(
        "error_filter_with_an_exception_set_by_a_cell",
        WARNED,
        "warnings.simplefilter('error')\nwarnings.filterwarnings('ignore', message='old')",
        "warned(), [f[0] for f in warnings.filters][:2]",
    ),
    kept(
        "filters_set_by_a_cell",
        "import warnings",
        "warnings.filterwarnings('ignore', category=FutureWarning)\nwarnings.filterwarnings('once', message='x', append=True)",
        "[(f[0], f[2].__name__) for f in (warnings.filters[0], warnings.filters[-1])]",
    ),
    kept(
        "csv_dialect_set_by_a_cell",
        "import csv, io",
        "csv.register_dialect('own', delimiter=';')",
        "list(csv.reader(io.StringIO('a;b'), 'own'))",
    ),
    kept(
        "sqlite_converter_set_by_a_cell",
        "import sqlite3",
        "sqlite3.register_converter('own', lambda b: b.decode() + '!')",
        "sqlite3.connect(':memory:', detect_types=sqlite3.PARSE_COLNAMES).execute('select 1 as \"c [own]\"').fetchone()[0]",
    ),
    kept(
        "mime_type_set_by_a_cell",
        "import mimetypes",
        "mimetypes.add_type('text/own', '.own')",
        "mimetypes.guess_type('a.own')[0]",
    ),
    kept("limit_set_by_a_cell", "import sys", "sys.setrecursionlimit(4321)", "sys.getrecursionlimit()"),
    kept(
        "logging_configured_by_a_cell",
        "import logging",
        "logging.basicConfig(level=logging.INFO, format='%(message)s', force=True)\nlogging.getLogger('own').setLevel(logging.ERROR)",
        "logging.root.level, logging.getLogger('own').level, [h.formatter._fmt for h in logging.root.handlers if h.formatter]",
    ),
    kept(
        "process_settings_set_by_a_cell",
        "import gc, os, signal, sys",
        "os.umask(0o027)\ngc.disable()\nsys.setswitchinterval(0.02)\ndef on_usr1(*_):\n    pass\nsignal.signal(signal.SIGUSR1, on_usr1)",
        "os.umask(0o027), gc.isenabled(), sys.getswitchinterval(), signal.getsignal(signal.SIGUSR1).__name__",
    ),
    kept(
        "locale_set_by_a_cell",
        "import locale",
        "locale.setlocale(locale.LC_NUMERIC, 'C.UTF-8')",
        "locale.setlocale(locale.LC_NUMERIC)",
    ),
    kept("socket_timeout_set_by_a_cell", "import socket", "socket.setdefaulttimeout(3)", "socket.getdefaulttimeout()"),
    kept(
        "float_format_of_the_notebook_set_by_a_cell",
        "import pandas as pd",
        "pd.options.display.float_format = lambda x: f'<{x:.1f}>'",
        "str(pd.Series([1.25]))",
    ),
    kept("warnings_made_errors_by_a_cell", WARNED, "warnings.simplefilter('error')", "warned()"),
    kept(
        "method_added_by_a_cell",
        "import pandas as pd",
        "def total(self):\n    return int(self.v.sum())\npd.DataFrame.total = total",
        "pd.DataFrame({'v': [1, 2]}).total()",
        reused=False,
    ),
    kept(
        "lambda_set_on_a_library_by_a_cell",
        "import pandas as pd\nK = 2",
        "pd.Series.twice = lambda self: (self * K).tolist()",
        "pd.Series([1, 2]).twice()",
    ),
    kept("alias_set_on_a_library_by_a_cell", "import numpy as np", "np.own = float", "np.own(2)"),
    kept(
        "accessor_registered_by_a_cell",
        "import pandas as pd, warnings\nwarnings.simplefilter('ignore')",
        "@pd.api.extensions.register_series_accessor('own')\nclass Own:\n    def __init__(self, s):\n        self.s = s\n    def total(self):\n        return int(self.s.sum())",
        "pd.Series([1, 2]).own.total()",
    ),
    kept(
        "method_taken_away_by_a_cell",
        "import pandas as pd\npd.Series.twice = lambda self: 2",
        "del pd.Series.twice",
        "hasattr(pd.Series, 'twice')",
    ),
    kept(
        "method_added_by_a_function_that_a_cell_calls",
        "import pandas as pd\ndef install():\n    def total(self):\n        return int(self.sum())\n    pd.Series.total = total",
        "install()",
        "pd.Series([1, 2]).total()",
    ),
    kept(
        "duckdb_table_made_by_a_cell",
        "import duckdb",
        "duckdb.sql('create or replace table t as select 3 as v')",
        "duckdb.sql('select v from t').fetchall()",
        reused=False,
    ),
    Case(
        "duckdb_table_filled_by_two_cells",
        [
            [
                "import duckdb",
                "%%asset made\nduckdb.sql('create or replace table t as select 3 as v')\nmade = 1",
                "%%asset more\nduckdb.sql('insert into t values (4)')\nmore = 1",
                "here = duckdb.sql('select v from t').fetchall()",
                "%%asset after\nafter = duckdb.sql('select sum(v) from t').fetchall()",
            ]
        ]
        * 2,
        ["here", "after"],
        reused=["after"],
        says="runs once in every kernel",
    ),
    Case(
        "duckdb_table_filled_twice_in_a_kernel",
        [
            [
                "import duckdb",
                *[
                    ("make", "duckdb.sql('create or replace table t as select 3 as v')"),
                    ("more", "%%asset more\nduckdb.sql('insert into t values (4)')\nmore = 1"),
                    ("here", "here = duckdb.sql('select v from t').fetchall()"),
                ]
                * 2,
            ]
        ],
        ["here"],
    ),
    Case(
        "duckdb_table_that_a_cell_drops_again",
        [
            [
                "import duckdb",
                "%%asset a\nduckdb.sql('create table t as select 3 as v')\na = duckdb.sql('select v from t').fetchall()\nduckdb.sql('drop table t')",
            ]
        ]
        * 2,
        ["a"],
        reused=["a"],
    ),
    Case(
        "option_set_by_a_cell_that_imports",
        [
            [
                "%%asset step\nimport pandas as pd\npd.set_option('display.max_rows', 10)\nstep = 1",
                f"import pandas as pd\nhere = {SHOWN}",
            ]
        ]
        * 2,
        ["here"],
        reused=["step"],
    ),
    Case(
        "search_path_extended_by_two_cells",
        [
            [
                "import sys",
                f"sys.path.insert(0, 'lib{k}')",
                "%%asset step\nsys.path.append('lib')\nstep = 1",
                "here = [p for p in sys.path if p.startswith('lib')]",
            ]
            for k in (1, 2)
        ],
        ["here"],
        reused=["step"],
    ),
    Case(
        "search_path_extended_by_a_cell",
        [["import sys", "%%asset step\nsys.path.append('lib')\nstep = 1", "import tools\nhere = tools.K"]] * 2,
        ["here"],
        files={"lib/tools.py": "K = 4\n"},
    ),
    Case(
        "variable_of_the_environment_that_a_step_reads_and_sets",
        [
            [
                "import os, itertools\nos.environ['COUNTED'] = '4'\nturn = itertools.count(1)",
                "%%asset a\na = os.environ['COUNTED']",
                "%%asset b\nos.environ['COUNTED'] = str(int(os.environ['COUNTED']) + 1)\nb = [next(turn)]",
                "%%asset c\nos.environ['COUNTED'] = 'other'\nb.append(a)\nc = len(b)",
                "%%asset d\nd = (a, b, c)",
            ]
        ]
        * 2,
        ["a", "b", "c", "d", "os.environ['COUNTED']", "next(turn)"],
    ),
    Case(
        "precision_that_a_step_sets_beside_what_is_not_stored",
        [
            [
                "import decimal\nimport numpy as np",
                "%%asset a\nnp.random.seed(1)\ndecimal.getcontext().prec = 6\na = (x * 4 for x in range(6))",
                "n = int(np.random.permutation(50)[0])",
                "%%asset b\nb = (next(a), int(np.random.randint(1000)))",
            ]
        ]
        * 2,
        ["n", "b"],
    ),
    read(
        "arguments_of_the_process",
        "import argparse, sys\nparser = argparse.ArgumentParser()\n_ = parser.add_argument('--rate', type=float)",
        ["sys.argv = ['train.py', '--rate', '1']", "sys.argv = ['train.py', '--rate', '2']"],
        "parser.parse_args().rate",
    ),
    kept("arguments_of_the_process_set", "import sys", "sys.argv = ['train.py', '--rate', '1']", "sys.argv[1:]"),
    # Log handlers.
    Case(
        "handler_of_a_logger",
        [
            [
                "import logging",
                "%%asset s\nlogger = logging.getLogger('app')\nlogger.addHandler(logging.StreamHandler())\nlogger.setLevel('INFO')\ns = 1",
                "n = len(logging.getLogger('app').handlers), type(logger.handlers[0]).__name__",
            ]
        ]
        * 2,
        ["n"],
        reused=("s",),
    ),
    Case(
        "log_file_of_a_logger",
        [
            [
                "import logging",
                "%%asset s\nlogger = logging.getLogger('app.run')\nif not logger.handlers:\n    h = logging.FileHandler('run.log')\n    h.setFormatter(logging.Formatter('%(levelname)s %(message)s'))\n    logger.addHandler(h)\nlogger.setLevel('INFO')\ns = 1",
                "logger.info('x')\nn = open('run.log').read().splitlines()[-1], len(logger.handlers)",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "handler_on_a_stream_of_the_notebook",
        [
            [
                "import logging, io\nbuf = io.StringIO()",
                "%%asset s\nlogger = logging.getLogger('app2')\nh = logging.StreamHandler(buf)\nh.setFormatter(logging.Formatter('%(message)s!'))\nlogger.addHandler(h)\nlogger.setLevel('INFO')\ns = 1",
                "logger.info('hey')\nn = buf.getvalue()",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "root_handler_on_a_stream_of_the_notebook",
        [
            [
                "import logging, io\nbuf = io.StringIO()",
                "%%asset s\nlogging.basicConfig(stream=buf, level='INFO', format='%(message)s', force=True)\ns = 1",
                "logging.info('hey')\nn = buf.getvalue()",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "handler_of_the_users_class",
        [
            [
                "import logging\nLINES = []\nclass Mine(logging.Handler):\n    def emit(self, record):\n        LINES.append(record.getMessage())",
                "%%asset s\nlogging.getLogger('m').addHandler(Mine())\ns = 1",
                "logging.getLogger('m').warning('hey')\nn = LINES",
            ]
        ]
        * 2,
        ["n"],
    ),
    Case(
        "handlers_removed",
        [
            [
                "import logging\nL = logging.getLogger('z')\nL.addHandler(logging.StreamHandler())",
                "%%asset s\nL.handlers.clear()\ns = 1",
                "n = len(L.handlers)",
            ]
        ]
        * 2,
        ["n"],
        reused=("s",),
    ),
    Case(
        "handlers_of_a_library",
        [
            [
                "%%asset s\nimport requests\ns = 1",
                "import logging\nn = [type(h).__name__ for h in logging.getLogger('urllib3').handlers]",
            ]
        ]
        * 2,
        ["n"],
        reused=("s",),
    ),
    Case(
        "class_of_a_library_under_another_name",
        [
            [
                "import collections, collections.abc",
                "%%asset s\ncollections.Iterable = collections.abc.Iterable\ns = 1",
                "n = isinstance([], collections.Iterable)",
            ]
        ]
        * 2,
        ["n"],
    ),
    # Filters and children of loggers.
    Case(
        "filter_of_a_logger",
        [
            [
                "import logging\nclass F(logging.Filter):\n    def filter(self, r): r.msg='F'+r.msg; return True",
                "%%asset s\nlg=logging.getLogger('app')\nlg.addFilter(F())\ns=1",
                "import io; b=io.StringIO(); lg.addHandler(logging.StreamHandler(b)); lg.warning('n'); n=b.getvalue()",
            ]
        ]
        * 3,
        ["n"],
    ),
    Case(
        "handler_of_a_child_logger",
        [
            [
                "import logging",
                "%%asset s\nlg=logging.getLogger('app').getChild('x')\nlg.setLevel(10)\nlg.addHandler(logging.NullHandler())\ns=1",
                "n=len(logging.getLogger('app.x').handlers), logging.getLogger('app.x').level",
            ]
        ]
        * 2,
        ["n"],
    ),
]
