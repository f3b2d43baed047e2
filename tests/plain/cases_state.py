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
DIVIDED = "def divided():\n    try:\n        return str(np.array([1.0]) / 0)\n    except FloatingPointError:\n        return 'raised'"
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
        "view_of_a_connection_of_the_notebook",
        "import duckdb\ncon = duckdb.connect()",
        [f"con.execute('create view t as select {k} as v')" for k in (1, 2)],
        "con.execute('select v from t').fetchall()",
    ),
    Case(
        "module_search_path",
        [
            ["import sys", f"sys.path.insert(0, '{folder}')", "%%asset a\nimport tools\na = tools.K"]
            for folder in ("one", "two")
        ],
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
    kept("warnings_made_errors_by_a_cell", WARNED, "warnings.simplefilter('error')", "warned()"),
    kept(
        "method_added_by_a_cell",
        "import pandas as pd",
        "def total(self):\n    return int(self.v.sum())\npd.DataFrame.total = total",
        "pd.DataFrame({'v': [1, 2]}).total()",
        reused=False,
    ),
    kept(
        "duckdb_table_made_by_a_cell",
        "import duckdb",
        "duckdb.sql('create or replace table t as select 3 as v')",
        "duckdb.sql('select v from t').fetchall()",
        reused=False,
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
        "search_path_extended_by_a_cell",
        [["import sys", "%%asset step\nsys.path.append('lib')\nstep = 1", "import tools\nhere = tools.K"]] * 2,
        ["here"],
        files={"lib/tools.py": "K = 4\n"},
    ),
]
