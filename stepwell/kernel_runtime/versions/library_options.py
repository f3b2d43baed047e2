# ruff: noqa: SLF001 - some libraries offer no public access to their options; the public access of other libraries takes 30 times as long
"""The table of options (`LIBRARIES`), and the functions that read and set the options of libraries.

Options for the place where a figure is shown are not in the table, and neither are most options for numbers of threads and for caches.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from stepwell.kernel_runtime.versions import patches
from stepwell.kernel_runtime.versions.options import UNSET, Counts, Library, Unset, never_counts
from stepwell.kernel_runtime.versions.process_options import PROCESS, registry

# -- arrays and frames


def _numpy(np: Any) -> dict[str, Any]:
    options = {f"errstate.{name}": value for name, value in np.geterr().items()}
    options["errcall"] = np.geterrcall()
    options["bufsize"] = np.getbufsize()
    for name, value in np.get_printoptions().items():
        options[f"print.{name}"] = value
    return options


def _numpy_glance(np: Any) -> Any:
    return np.geterr(), np.geterrcall(), np.getbufsize(), np.get_printoptions()


def _set_numpy(np: Any, option: str, value: Any) -> None:
    kind, _, name = option.partition(".")
    if kind == "errstate":
        np.seterr(**{name: value})
    elif kind == "errcall":
        np.seterrcall(value)
    elif kind == "bufsize":
        np.setbufsize(value)
    else:
        np.set_printoptions(**{name: value})


_NUMPY = {
    "errstate.divide": "warn", "errstate.over": "warn", "errstate.under": "ignore", "errstate.invalid": "warn", "errcall": None, "bufsize": 8192,
    "print.edgeitems": 3, "print.threshold": 1000, "print.precision": 8, "print.linewidth": 75, "print.suppress": False, "print.nanstr": "nan",
    "print.infstr": "inf", "print.sign": "-", "print.floatmode": "maxprec", "print.formatter": None, "print.legacy": False,
    "print.override_repr": None,
}  # fmt: skip


def _numpy_counts(option: str) -> Counts:
    return "text" if option.startswith("print.") else "never" if option == "bufsize" else "value"


_groups: list[dict[str, Any]] = []


def _pandas(pd: Any) -> dict[str, Any]:
    options: dict[str, Any] = {}
    queue: list[tuple[str, Any]] = [("", pd._config.config._global_config)]
    for prefix, level in queue:
        for name, value in level.items():
            if type(value) is dict:
                queue.append((f"{prefix}{name}.", value))
            else:
                options[prefix + name] = value
    _groups[:] = [level for _, level in queue]
    return options


def _pandas_glance(pd: Any) -> Any:
    if not _groups:
        _pandas(pd)
    return [[*level.values()] for level in _groups]


def _pandas_defaults(pd: Any) -> Mapping[str, Any]:
    return {name: option.defval for name, option in pd._config.config._registered_options.items()}


def _pandas_counts(option: str) -> Counts:
    if option.startswith(("display.", "styler.", "plotting.")):
        return "text"
    return "never" if option in {"mode.sim_interactive", "mode.performance_warnings", "mode.max_threads"} else "value"


def _set_pandas(pd: Any, option: str, value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pd.set_option(option, value)


def _polars_names(pl: Any) -> tuple[Any, Any, dict[str, Callable[[], Any]]]:
    config = sys.modules[pl.Config.__module__]
    return os.environ, config._POLARS_CFG_ENV_VARS, config._POLARS_CFG_DIRECT_VARS


_encoded: dict[str, Any] = {}


def _polars_glance(pl: Any) -> Any:
    environ, names, direct = _polars_names(pl)
    if not _encoded:
        _encoded.update({name: environ.encodekey(name) for name in names})
    # Read from the data of ``os.environ``, because its methods report reads to the recorder of the running step.
    return [*map(environ._data.get, _encoded.values()), *[get() for get in direct.values()]]


def _polars(pl: Any) -> dict[str, Any]:
    environ, names, direct = _polars_names(pl)
    # Read from the data of ``os.environ``, so that these reads are not recorded.
    data, encode = environ._data, environ.encodekey
    options = {name: os.fsdecode(value) if (value := data.get(encode(name))) is not None else None for name in names}
    for name, get in direct.items():
        options[name] = get()
    return options


def _set_polars(pl: Any, option: str, value: Any) -> None:
    _, names, _ = _polars_names(pl)
    group = "environment" if option in names else "direct"
    pl.Config.load(json.dumps({"environment": {}, "direct": {}} | {group: {option: value}}))


_POLARS = {
    "set_fmt_float": "mixed", "set_float_precision": None, "set_thousands_separator": "", "set_decimal_separator": ".",
    "set_trim_decimal_zeros": False,
}  # fmt: skip


def _polars_counts(option: str) -> Counts:
    return "text" if option.startswith(("POLARS_FMT", "POLARS_TABLE", "set_")) else "never"


# -- pictures

_WHERE_SHOWN = ("backend", "interactive", "toolbar", "webagg", "tk.", "macosx", "keymap.")
_CODES = "bgrcmykw"


def _matplotlib(module: Any) -> dict[str, Any]:
    options = {
        name: list(value) if type(value) is list else value
        for name, value in dict.items(module.rcParams)
        if not name.startswith(_WHERE_SHOWN)
    }
    colors = sys.modules.get("matplotlib.colors")
    if colors is not None:
        # seaborn.set_theme changes the colours that letters such as "b" and "g" stand for.
        for code in _CODES:
            options[f"color {code}"] = tuple(colors.colorConverter.colors[code])
    return options


_lists: list[Callable[[Any], Any]] = []
_letters = itemgetter(*_CODES)


def _matplotlib_glance(module: Any) -> Any:
    values = list(dict.values(module.rcParams))
    if not _lists:
        _lists.append(itemgetter(*[index for index, value in enumerate(values) if type(value) is list]))
    colors = sys.modules.get("matplotlib.colors")
    # Copy the lists, because cells may change them in place.
    return (
        values,
        [*map(tuple, _lists[0](values))],
        _letters(colors.colorConverter.colors) if colors is not None else (),
    )


def _matplotlib_defaults(module: Any) -> Mapping[str, Any]:
    # Copy the lists, because an option and its default may be the same list, which a cell may change in place.
    defaults = {name: list(item) if type(item) is list else item for name, item in dict.items(module.rcParamsDefault)}
    colors = sys.modules.get("matplotlib.colors")
    if colors is not None:
        defaults |= {f"color {code}": tuple(colors.BASE_COLORS[code]) for code in _CODES}
    return defaults


def _set_matplotlib(module: Any, option: str, value: Any) -> None:
    if option.startswith("color "):
        sys.modules["matplotlib.colors"].colorConverter.colors[option[-1]] = tuple(value)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.rcParams[option] = value


def _user_maps(colormaps: Any) -> list[tuple[str, Any]]:
    """Return the name and value of each colormap that the user has registered. Colormaps that packages register during their import are left out."""
    packaged = {name for package in _MAPS for name in vars(sys.modules.get(package, sys))}
    return [
        (name, colormap)
        for name, colormap in list(colormaps._cmaps.items())[len(colormaps._builtin_cmaps) :]
        if name.removesuffix("_r") not in packaged and not name.startswith(_MAP_PREFIXES)
    ]


_MAPS = ("seaborn.cm",)
_MAP_PREFIXES = ("cmo.", "cet_", "cmr.", "cmc.", "cmyt.", "palettable")


def _registered(colormaps: Any) -> dict[str, Any]:
    options = {f"colormap {name}": (name, colormap) for name, colormap in _user_maps(colormaps)}
    units = sys.modules.get("matplotlib.units")
    if units is not None:
        options |= _units(units)
    return options


def _registered_glance(colormaps: Any) -> Any:
    units = sys.modules.get("matplotlib.units")
    maps = colormaps._cmaps
    # The number of names is not enough, because a cell may replace the colormap of a name.
    return len(maps), list(maps.values())[len(colormaps._builtin_cmaps) :], dict(units.registry) if units else None


_units, _set_unit = registry(lambda _: sys.modules["matplotlib.units"].registry, prefix="unit ")


def _set_registered(colormaps: Any, option: str, value: Any) -> None:
    kind, _, name = option.partition(" ")
    if kind == "unit":
        _set_unit(None, option, value)
    elif value is UNSET:
        colormaps.unregister(name)
    else:
        colormaps.register(value[1], name=name, force=True)


_TEMPLATES = frozenset((
    "ggplot2", "seaborn", "simple_white", "plotly", "plotly_white", "plotly_dark", "presentation", "xgridoff", "ygridoff", "gridon", "none",
))  # fmt: skip


def _plotly(module: Any) -> dict[str, Any]:
    templates = module.templates
    options = {f"template {name}": (name, templates[name]) for name in templates if name not in _TEMPLATES}
    return {"template": templates.default, **options}


def _set_plotly(module: Any, option: str, value: Any) -> None:
    name = option.removeprefix("template ")
    if option == "template":
        module.templates.default = value
    elif value is UNSET:
        del module.templates[name]
    else:
        module.templates[name] = value[1]


_ALTAIR = ("theme", "data_transformers")


def _altair(module: Any) -> dict[str, Any]:
    return {
        name: [registry.active, dict(registry.options)]
        for name in _ALTAIR
        if (registry := getattr(module, name, None)) is not None
    }


def _set_altair(module: Any, option: str, value: list[Any]) -> None:
    getattr(module, option).enable(value[0], **value[1])


def _bokeh(module: Any) -> dict[str, Any]:
    return {"theme": module.curdoc().theme._json}


def _set_bokeh(module: Any, _: str, value: dict[str, Any]) -> None:
    from bokeh.themes import Theme  # type: ignore[import-not-found, unused-ignore]

    module.curdoc().theme = Theme(json=value)


# -- models, arrays, graphs


def _sklearn_counts(option: str) -> Counts:
    if option in {"print_changed_only", "display"}:
        return "text"
    return "never" if option in {"working_memory", "pairwise_dist_chunk_size"} else "value"


def _set_sklearn(module: Any, option: str, value: Any) -> None:
    module.set_config(**{option: value})


def _sklearn_defaults(module: Any) -> Mapping[str, Any]:
    defaults: Mapping[str, Any] = getattr(module._config, "_global_config", {})
    return dict(defaults)


def _xarray_defaults(module: Any) -> Mapping[str, Any]:
    """Return the default options of xarray.

    When an option is set, xarray overwrites its default. Therefore, xarray's module of options is executed once more as a new module, and the
    defaults are read from this new module. The result is empty if this version of xarray has no such module.
    """
    from importlib.util import find_spec, module_from_spec

    spec = find_spec("xarray.core.options")
    if spec is None or spec.loader is None:
        return {}
    del module
    pristine = module_from_spec(spec)
    spec.loader.exec_module(pristine)
    return dict(pristine.OPTIONS)


def _xarray_counts(option: str) -> Counts:
    if option.startswith(("display_", "cmap_", "facetgrid")):
        return "text"
    return "never" if option in {"file_cache_maxsize", "warn_for_unclosed_files"} else "value"


def _set_xarray(module: Any, option: str, value: Any) -> None:
    module.set_options(**{option: value})


_TORCH = {
    "default_dtype": "float32", "default_device": "cpu", "deterministic": False, "deterministic_warn_only": False,
    "float32_matmul_precision": "highest", "grad": True, "cudnn.deterministic": False, "cudnn.benchmark": False,
}  # fmt: skip


def _torch(module: Any) -> dict[str, Any]:
    options = {
        "default_dtype": str(module.get_default_dtype()).removeprefix("torch."),
        "deterministic": module.are_deterministic_algorithms_enabled(),
        "deterministic_warn_only": module.is_deterministic_algorithms_warn_only_enabled(),
        "float32_matmul_precision": module.get_float32_matmul_precision(),
        "grad": module.is_grad_enabled(),
        "cudnn.deterministic": module.backends.cudnn.deterministic,
        "cudnn.benchmark": module.backends.cudnn.benchmark,
    }
    if hasattr(module, "get_default_device"):
        options["default_device"] = str(module.get_default_device())
    prints = getattr(sys.modules.get("torch._tensor_str"), "PRINT_OPTS", None)
    if prints is not None:
        options |= {
            f"print.{name}": getattr(prints, name) for name in ("precision", "threshold", "edgeitems", "linewidth", "sci_mode")
        }
    return options


def _set_torch(module: Any, option: str, value: Any) -> None:
    if option == "default_dtype":
        module.set_default_dtype(getattr(module, value))
    elif option == "default_device":
        module.set_default_device(value)
    elif option.startswith("deterministic"):
        now = {"deterministic": module.are_deterministic_algorithms_enabled()} | {
            "deterministic_warn_only": module.is_deterministic_algorithms_warn_only_enabled(),
            option: value,
        }
        module.use_deterministic_algorithms(now["deterministic"], warn_only=now["deterministic_warn_only"])
    elif option == "float32_matmul_precision":
        module.set_float32_matmul_precision(value)
    elif option == "grad":
        module.set_grad_enabled(value)
    elif option.startswith("print."):
        module.set_printoptions(**{option.removeprefix("print."): value})
    else:
        setattr(module.backends.cudnn, option.removeprefix("cudnn."), value)


def _torch_counts(option: str) -> Counts:
    return "text" if option.startswith("print.") else "never" if option == "deterministic_warn_only" else "value"


_TORCH_PRINTS = {
    "print.precision": 4, "print.threshold": 1000, "print.edgeitems": 3, "print.linewidth": 80, "print.sci_mode": None,
}  # fmt: skip

_JAX = {
    "jax_enable_x64": False, "jax_default_matmul_precision": None, "jax_numpy_rank_promotion": "allow", "jax_debug_nans": False,
    "jax_debug_infs": False, "jax_disable_jit": False, "jax_default_prng_impl": "threefry2x32", "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0, "jax_enable_custom_prng": False, "jax_softmax_custom_jvp": False, "jax_allow_f16_reductions": True,
    "jax_platforms": None, "jax_platform_name": "", "jax_numpy_dtype_promotion": "standard",
}  # fmt: skip


def _jax(module: Any) -> dict[str, Any]:
    options = {name: getattr(module.config, name) for name in _JAX if hasattr(module.config, name)}
    # Some options are members of enumerations; the library sets them by value.
    return {name: getattr(value, "value", value) for name, value in options.items()}


def _set_jax(module: Any, option: str, value: Any) -> None:
    module.config.update(option, value)


def _keras(module: Any) -> dict[str, Any]:
    return {name: getattr(module.config, name)() for name in ("floatx", "epsilon", "image_data_format")}


def _set_keras(module: Any, option: str, value: Any) -> None:
    getattr(module.config, f"set_{option}")(value)


def _networkx(module: Any) -> dict[str, Any]:
    config = module.config
    order = config.backend_priority
    options = {
        f"backend_priority.{name}": list(getattr(order, name))
        for name in ("algos", "generators", "classes")
        if hasattr(order, name)
    }
    for name in ("fallback_to_nx", "cache_converted_graphs"):
        options[name] = getattr(config, name)
    return options


def _set_networkx(module: Any, option: str, value: Any) -> None:
    group, _, name = option.rpartition(".")
    setattr(getattr(module.config, group) if group else module.config, name, value)


_NETWORKX = {
    "backend_priority.algos": [], "backend_priority.generators": [], "backend_priority.classes": [], "fallback_to_nx": False,
    "cache_converted_graphs": True,
}  # fmt: skip


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    queue: list[tuple[str, Mapping[str, Any]]] = [("", config)]
    for prefix, level in queue:
        for name, value in level.items():
            if type(value) is dict and value:
                queue.append((f"{prefix}{name}.", value))
            else:
                options[prefix + name] = list(value) if type(value) is list else value
    return options


def _dask(module: Any) -> dict[str, Any]:
    return _flat(module.config)


def _dask_defaults(module: Any) -> Mapping[str, Any]:
    return Unset(_flat(module.merge(*module.defaults)))


def _set_dask(module: Any, option: str, value: Any) -> None:
    if value is not UNSET:
        module.set({option: value})
        return
    groups = [module.config]
    *outer, last = option.split(".")
    for name in outer:
        groups.append(groups[-1][name])
    groups[-1].pop(last, None)
    for name, group, inner in reversed([*zip(outer, groups, groups[1:], strict=False)]):
        if not inner:
            del group[name]


def _dask_counts(option: str) -> Counts:
    if option.startswith(("array.", "dataframe.", "optimization.", "tokenize.", "bag.")):
        return "value"
    return "never"


def _geopandas(module: Any) -> dict[str, Any]:
    return dict(module.options._config)


def _geopandas_defaults(module: Any) -> Mapping[str, Any]:
    return {name: option.default_value for name, option in module.options._options.items()}


def _geopandas_counts(option: str) -> Counts:
    return "text" if option == "display_precision" else "value"


def _set_geopandas(module: Any, option: str, value: Any) -> None:
    setattr(module.options, option, value)


def _sympy(module: Any) -> dict[str, Any]:
    parameters = module.core.parameters.global_parameters
    options = {f"evaluation.{name}": getattr(parameters, name) for name in ("evaluate", "distribute", "exp_is_pow")}
    for name, value in module.printing.printer.Printer._global_settings.items():
        options[f"print.{name}"] = value
    return options


def _set_sympy(module: Any, option: str, value: Any) -> None:
    kind, _, name = option.partition(".")
    if kind == "evaluation":
        setattr(module.core.parameters.global_parameters, name, value)
    elif value is UNSET:
        module.printing.printer.Printer._global_settings.pop(name, None)
    else:
        module.printing.printer.Printer.set_global_settings(**{name: value})


_SYMPY = Unset({"evaluation.evaluate": True, "evaluation.distribute": True, "evaluation.exp_is_pow": False})


def _sympy_counts(option: str) -> Counts:
    return "text" if option.startswith("print.") else "value"


def _special(module: Any) -> dict[str, Any]:
    options: dict[str, Any] = module.geterr()
    return options


def _set_special(module: Any, option: str, value: str) -> None:
    module.seterr(**{option: value})


class _SpecialDefaults(dict[str, Any]):
    """The defaults of scipy.special: a lack of memory raises an exception, every other kind of error is ignored."""

    def __contains__(self, option: object) -> bool:
        return True

    def __missing__(self, option: str) -> str:
        return "raise" if option == "memory" else "ignore"


def _pillow(module: Any) -> dict[str, Any]:
    files = sys.modules.get("PIL.ImageFile")
    return {
        "MAX_IMAGE_PIXELS": module.MAX_IMAGE_PIXELS,
        "LOAD_TRUNCATED_IMAGES": getattr(files, "LOAD_TRUNCATED_IMAGES", False),
    }


def _set_pillow(module: Any, option: str, value: Any) -> None:
    from PIL import ImageFile

    setattr(module if option == "MAX_IMAGE_PIXELS" else ImageFile, option, value)


def _tqdm(pandas: Any) -> dict[str, Any]:
    return {"progress_apply": "progress_apply" in vars(pandas.DataFrame)}


def _set_tqdm(pandas: Any, _: str, value: bool) -> None:
    if value and "progress_apply" not in vars(pandas.DataFrame):
        from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

        tqdm.pandas()


LIBRARIES: tuple[Library, ...] = (
    *PROCESS,
    Library("numpy", _numpy, _set_numpy, "numpy", ("numpy",), lambda _: _NUMPY, _numpy_counts, _numpy_glance),
    Library("pandas", _pandas, _set_pandas, "pandas", ("pandas",), _pandas_defaults, _pandas_counts, _pandas_glance),
    Library("polars", _polars, _set_polars, "polars", ("polars",), lambda pl: dict.fromkeys(_polars_names(pl)[1]) | _POLARS,
            _polars_counts, _polars_glance),
    Library("matplotlib", _matplotlib, _set_matplotlib, "matplotlib", ("matplotlib", "mpl_toolkits", "seaborn", "plotnine"),
            _matplotlib_defaults, glance=_matplotlib_glance),
    Library("matplotlib registries", lambda module: _registered(module.colormaps), lambda module, *given: _set_registered(module.colormaps, *given),
            "matplotlib", ("matplotlib", "seaborn", "pandas"), lambda _: Unset(), glance=lambda module: _registered_glance(module.colormaps)),
    Library("plotly", _plotly, _set_plotly, "plotly.io", ("plotly",), lambda _: Unset({"template": "plotly"})),
    Library("altair", _altair, _set_altair, "altair", ("altair",), lambda _: {name: ["default", {}] for name in _ALTAIR}),
    Library("bokeh", _bokeh, _set_bokeh, "bokeh.io", ("bokeh",), lambda _: {"theme": {"attrs": {}}}),
    Library("sklearn", lambda module: dict(module.get_config()), _set_sklearn, "sklearn", ("sklearn", "imblearn"), _sklearn_defaults,
            _sklearn_counts),
    Library("scipy.special", _special, _set_special, "scipy.special", ("scipy",), lambda _: _SpecialDefaults()),
    Library("xarray", lambda module: dict(module.get_options()), _set_xarray, "xarray", ("xarray",), _xarray_defaults, _xarray_counts),
    Library("torch", _torch, _set_torch, "torch", ("torch",), lambda _: _TORCH | _TORCH_PRINTS, _torch_counts),
    Library("jax", _jax, _set_jax, "jax", ("jax", "jaxlib"), lambda _: _JAX),
    Library("keras", _keras, _set_keras, "keras", ("keras", "tensorflow"),
            lambda _: {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}),
    Library("networkx", _networkx, _set_networkx, "networkx", ("networkx",), lambda _: _NETWORKX),
    Library("dask", _dask, _set_dask, "dask.config", ("dask",), _dask_defaults, _dask_counts),
    Library("geopandas", _geopandas, _set_geopandas, "geopandas", ("geopandas",), _geopandas_defaults, _geopandas_counts),
    Library("sympy", _sympy, _set_sympy, "sympy", ("sympy",), lambda _: _SYMPY, _sympy_counts),
    Library("pillow", _pillow, _set_pillow, "PIL.Image", ("PIL", "torchvision"),
            lambda _: {"MAX_IMAGE_PIXELS": 89478485, "LOAD_TRUNCATED_IMAGES": False}),
    patches.ROW,
    Library("tqdm", _tqdm, _set_tqdm, "pandas", defaults=lambda _: {"progress_apply": False}, counts=never_counts),
)  # fmt: skip
"""The table of options. A reuse sets options in the order of the rows."""
