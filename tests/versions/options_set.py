"""Sets options of libraries and of the process, as a step does: run by `test_library_state` in processes of its own."""

# ruff: noqa: ISC004

import contextlib
import json
import sys
from importlib.util import find_spec

# By row of the table: the module to import, statements that change something, and an expression that shows what they changed.
SET = {
    "working directory": (
        "os",
        "os.makedirs('inner', exist_ok=True); os.chdir('inner')",
        "os.path.basename(os.getcwd())",
    ),
    "sys.path": (
        "sys",
        "sys.path.insert(0, '/front'); sys.path.append('/back')",
        "(sys.path[0], sys.path[-1], len(sys.path))",
    ),
    "time zone": ("time", "import os; os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()", "time.localtime(0)[:5]"),
    "locale": ("locale", "locale.setlocale(locale.LC_NUMERIC, 'C.UTF-8')", "locale.setlocale(locale.LC_NUMERIC)"),
    "warnings": (
        "warnings",
        "warnings.simplefilter('error', UserWarning)",
        "[f for f in warnings.filters if f[0] == 'error']",
    ),
    "limits": (
        "sys",
        "sys.set_int_max_str_digits(0); sys.setrecursionlimit(4321)",
        "(sys.get_int_max_str_digits(), sys.getrecursionlimit())",
    ),
    "decimal": (
        "decimal",
        "decimal.getcontext().prec = 4; decimal.getcontext().traps[decimal.Inexact] = True; decimal.getcontext().rounding = 'ROUND_UP'",
        "str(decimal.getcontext())",
    ),
    "csv": (
        "csv",
        "csv.field_size_limit(7); csv.register_dialect('own', delimiter='|')",
        "(csv.field_size_limit(), [csv.get_dialect(name).delimiter for name in csv.list_dialects()])",
    ),
    "process": (
        "os, sys, gc",
        "import os, sys, gc; os.umask(0o027); gc.disable(); gc.set_threshold(900, 20, 20); sys.setswitchinterval(0.02)",
        "((lambda mask: (os.umask(mask), mask)[1])(os.umask(0o077)), gc.isenabled(), gc.get_threshold(), sys.getswitchinterval())",
    ),
    "logging": (
        "logging",
        "logging.basicConfig(level=10, format='%(message)s'); logging.getLogger('own.part').setLevel(40); logging.disable(5)",
        "(logging.root.level, logging.getLogger('own.part').level, logging.root.manager.disable, [type(h).__name__ + h.formatter._fmt for h in logging.root.handlers])",
    ),
    "mimetypes": (
        "mimetypes",
        "mimetypes.add_type('text/own', '.own')",
        "mimetypes.guess_type('a.own')",
    ),
    "socket": ("socket", "socket.setdefaulttimeout(3)", "socket.getdefaulttimeout()"),
    "multiprocessing": (
        "multiprocessing",
        "multiprocessing.set_start_method('spawn', force=True)",
        "multiprocessing.get_start_method()",
    ),
    "numpy": (
        "numpy",
        "numpy.seterr(divide='raise'); numpy.set_printoptions(precision=3, suppress=True); numpy.setbufsize(16384)",
        "(numpy.geterr(), str(numpy.array([1.23456789])), numpy.getbufsize())",
    ),
    "pandas": (
        "pandas",
        "pandas.set_option('display.max_rows', 7); pandas.options.display.float_format = '{:.2f}'.format;"
        " pandas.set_option('mode.string_storage', 'python'); pandas.options.display.precision = 2",
        "(str(pandas.DataFrame({'a': [1.234] * 9})), pandas.options.mode.string_storage)",
    ),
    "polars": (
        "polars",
        "polars.Config.set_tbl_rows(3); polars.Config.set_fmt_float('full'); polars.Config.set_thousands_separator(',')",
        "str(polars.DataFrame({'a': [1234567.5] * 9}))",
    ),
    "matplotlib": (
        "matplotlib",
        "import matplotlib.style; matplotlib.style.use('ggplot'); matplotlib.rcParams['figure.figsize'][0] = 3.5;"
        " matplotlib.colors.colorConverter.colors['b'] = (0.1, 0.2, 0.3)",
        "(repr(matplotlib.rcParams['axes.prop_cycle']), matplotlib.rcParams['figure.figsize'], matplotlib.rcParams['axes.facecolor'],"
        " matplotlib.colors.to_rgb('b'))",
    ),
    "sklearn": (
        "sklearn",
        "sklearn.set_config(transform_output='pandas', assume_finite=True, working_memory=512)",
        "sorted(sklearn.get_config().items())",
    ),
    "scipy.special": (
        "scipy.special",
        "scipy.special.seterr(domain='raise')",
        "sorted(scipy.special.geterr().items())",
    ),
    "pillow": (
        "PIL.Image",
        "import PIL.ImageFile; PIL.Image.MAX_IMAGE_PIXELS = 5; PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True",
        "(PIL.Image.MAX_IMAGE_PIXELS, getattr(__import__('sys').modules.get('PIL.ImageFile'), 'LOAD_TRUNCATED_IMAGES', False))",
    ),
}
# These run where their library is installed.
FURTHER = {
    "xarray": (
        "xarray",
        "xarray.set_options(keep_attrs=True, display_width=40)",
        "sorted(xarray.get_options().items(), key=repr)",
    ),
    "networkx": ("networkx", "networkx.config.fallback_to_nx = True", "networkx.config.fallback_to_nx"),
    "sympy": (
        "sympy",
        "from sympy.core.parameters import global_parameters; global_parameters.evaluate = False;"
        " sympy.printing.printer.Printer.set_global_settings(order='none')",
        "(str(sympy.Symbol('x') + sympy.Symbol('x')), sympy.printing.printer.Printer._global_settings)",
    ),
    "dask": (
        "dask.config",
        "dask.config.set({'array.chunk-size': '1MiB', 'dataframe.backend': 'pandas', 'my.own': [1]})",
        "(dask.config.get('array.chunk-size'), dask.config.get('my.own', None))",
    ),
    "altair": (
        "altair",
        "altair.theme.enable('dark'); altair.data_transformers.disable_max_rows()",
        "(altair.theme.active, altair.data_transformers.options)",
    ),
    "plotly": ("plotly.io", "plotly.io.templates.default = 'plotly_dark'", "plotly.io.templates.default"),
    "bokeh": ("bokeh.io", "bokeh.io.curdoc().theme = 'dark_minimal'", "str(bokeh.io.curdoc().theme._json)"),
    "geopandas": ("geopandas", "geopandas.options.display_precision = 2", "geopandas.options.display_precision"),
    "jax": (
        "jax",
        "jax.config.update('jax_enable_x64', True); jax.config.update('jax_numpy_dtype_promotion', 'strict')",
        "(jax.config.jax_enable_x64, str(jax.config.jax_numpy_dtype_promotion))",
    ),
    "torch": (
        "torch",
        "torch.set_default_dtype(torch.float64); torch.use_deterministic_algorithms(True); torch.set_printoptions(precision=2)",
        "(torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), str(torch.tensor(1.23456)))",
    ),
    "keras": ("keras", "keras.config.set_floatx('float64')", "keras.config.floatx()"),
    "tqdm": (
        "tqdm.auto",
        "import pandas; tqdm.auto.tqdm.pandas()",
        "hasattr(__import__('pandas').DataFrame, 'progress_apply')",
    ),
}


def installed(name):
    with contextlib.suppress(ModuleNotFoundError):
        return find_spec(name) is not None
    return False


ALL = SET | {row: three for row, three in FURTHER.items() if installed(three[0].partition(".")[0])}


def shown(module, expression):
    space = {}
    exec(f"import {module}", space)
    return repr(eval(expression, space))


def change():
    """Change each row in turn and undo it; print what `changed` gave, and what was shown before, changed, undone and redone."""
    from stepwell.kernel_runtime.versions import library_state

    found = {}
    for row, (module, statements, expression) in ALL.items():
        default = shown(module, expression)
        library_state.snapshot()
        before = library_state.snapshot()
        quiet = library_state.changed(before, library_state.snapshot())
        exec(f"import {module}\n{statements}", {})
        after = library_state.snapshot()
        changed = shown(module, expression)
        entries, back = library_state.changed(before, after), library_state.changed(after, before)
        failed = library_state.apply(back)
        undone = shown(module, expression)
        left = library_state.changed(before, library_state.snapshot())
        failed += library_state.apply(json.loads(json.dumps(entries)))
        redone = shown(module, expression)
        library_state.apply(back)
        found[row] = {
            "quiet": quiet, "entries": entries, "default": default, "changed": changed, "undone": undone, "redone": redone, "left": left,
            "failed": failed,
        }  # fmt: skip
    return found


def defer(entries):
    """Apply entries before their libraries are imported; print what is shown when they are, and whether that is a change."""
    from stepwell.kernel_runtime.versions import library_state
    from stepwell.kernel_runtime.versions.data import data_version

    waiting = [row for row, (module, _, _) in ALL.items() if entries[row] and module not in sys.modules]
    failed = {row: library_state.apply(entries[row]) for row in ALL}
    before = library_state.snapshot()
    told = {row: library_state.state_digest(row, data_version) for row in ALL}
    for row in ALL:
        exec(f"import {ALL[row][0]}", {})
    differing = library_state.changed(before, library_state.snapshot())
    return {
        "waiting": waiting,
        "failed": [name for names in failed.values() for name in names],
        "differing": [name for name, _ in differing],
        "told": {row: told[row] == library_state.state_digest(row, data_version) for row in ALL},
        "shown": {row: shown(module, expression) for row, (module, _, expression) in ALL.items()},
    }


if __name__ == "__main__":
    print(json.dumps(change() if sys.argv[1] == "change" else defer(json.load(sys.stdin))))
