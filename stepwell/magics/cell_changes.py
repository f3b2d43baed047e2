"""Static analysis that finds the names of the notebook whose objects a piece of code may change in place.

A name is in the result unless all its uses are harmless: reads of attributes and items, operators, comparisons, and calls of the functions and
methods that this module lists. The result may therefore contain names whose objects the code does not change.
"""

from __future__ import annotations

import ast
import builtins

_PURE_BUILTINS = frozenset(
    "abs all any ascii bin bool bytes callable chr complex dict dir divmod enumerate filter float format frozenset getattr hasattr hash hex id "
    "int isinstance issubclass iter len list map max memoryview min oct ord pow print range repr reversed round set slice sorted str sum tuple "
    "type zip display".split()
)
# `iter`, `map`, `filter`, `zip`, `enumerate` and `reversed` return views of their arguments. If a view is assigned to a name, `_Changes` treats a
# change of this name as a change of the arguments, too.
_PURE_METHODS = frozenset(
    # str, list, dict, set
    "count index startswith endswith split rsplit splitlines join strip lstrip rstrip replace lower upper title format encode decode find keys values items get copy "
    "union intersection difference issubset issuperset isdisjoint "
    # pandas, polars, numpy, pyarrow
    "head tail describe info sum mean median std var min max quantile count nunique unique value_counts isna isnull notna notnull groupby agg aggregate merge join assign "
    "query sort_values sort_index reset_index set_index rename drop dropna fillna drop_duplicates astype copy to_frame to_list tolist to_dict to_numpy to_csv to_parquet "
    "to_json to_string to_html to_markdown to_excel to_pickle to_sql pivot pivot_table melt stack unstack corr cov cumsum cumprod diff pct_change shift rolling expanding resample "
    "sample nlargest nsmallest isin between clip round abs any all idxmin idxmax transpose plot hist boxplot reindex filter select select_dtypes where mask with_columns "
    "lazy collect rows iter_rows iterrows itertuples equals dot reshape ravel flatten argmin argmax argsort nonzero squeeze swapaxes take apply map applymap transform explode "
    "memory_usage duplicated to_period to_timestamp to_datetime strftime tz_localize tz_convert to_arrow to_pandas to_table column_names num_rows schema slice "
    # scikit-learn: methods that do not fit a model
    "predict predict_proba decision_function score get_params get_feature_names_out".split()
)
_IMPURE_FUNCTIONS = frozenset(
    "shuffle fill_diagonal put place copyto putmask put_along_axis heappush heappop heapify heapreplace heappushpop insort insort_left "
    "insort_right setattr delattr next setitem delitem iadd seed exec eval".split()
)
_PURE_MODULES = frozenset(
    "np numpy pd pandas pl polars plt matplotlib sns seaborn math json os pathlib itertools functools collections statistics re datetime operator "
    "copy stats scipy pa pyarrow px go alt".split()
)
_EVERYTHING = frozenset({"globals", "locals", "vars", "eval", "exec", "get_ipython", "__import__"})


_READ_ONLY_MAGICS = frozenset(
    "alias autosave cd colors conda config env history lineage load_ext lsmagic matplotlib page pinfo pinfo2 pip precision psource pwd pycat "
    "stepwell uv who who_ls whos why xmode".split()
)
"""Line magics that do not change objects of the notebook. Stepwell's magics may run steps, but the engine itself records the changes of steps."""


def shell_call(node: ast.AST) -> tuple[str, str, str] | None:
    """Return the name of the method and its first two arguments if `node` is a call like ``get_ipython().system("ls")``; otherwise return None.

    IPython's transformer generates such calls from magics and shell commands. An argument that is missing or is not a string constant is returned
    as an empty string.
    """
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call)):
        return None
    inner = node.func.value.func
    if not (isinstance(inner, ast.Name) and inner.id == "get_ipython"):
        return None
    arguments = [
        argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else "" for argument in node.args
    ]
    return node.func.attr, *([*arguments, "", ""][:2])  # type: ignore[return-value]


def _is_read_only(node: ast.Call) -> bool:
    """Return True if IPython generated `node` from ``!command`` or from a magic in `_READ_ONLY_MAGICS`, which change no objects of the notebook."""
    method, name, _ = shell_call(node) or ("", "", "")
    return method in {"system", "getoutput"} or (method == "run_line_magic" and name in _READ_ONLY_MAGICS)


class _Changes(ast.NodeVisitor):
    def __init__(self) -> None:
        self.changed_names: set[str] = set()
        self.called_names: set[str] = set()
        self.changes_everything = False
        self.aliases: list[tuple[set[str], set[str]]] = []

    # -- assignments

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._target(target, node.value)
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._target(node.target, node.value)
            self.visit(node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._target(node.target, node.value)
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._change(node.target)
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if not isinstance(target, ast.Name):
                self._change(target)

    def _loop(self, node: ast.For | ast.AsyncFor) -> None:
        self._target(node.target, node.iter)
        self.visit(node.iter)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    visit_For = _loop  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_AsyncFor = _loop  # noqa: N815 - the name that ast.NodeVisitor calls

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._target(node.target, node.iter)
        self.generic_visit(node)

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            if item.optional_vars is not None:
                self._target(item.optional_vars, item.context_expr)
        self.generic_visit(node)

    visit_With = _with  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_AsyncWith = _with  # noqa: N815 - the name that ast.NodeVisitor calls

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        pure = False
        if _is_read_only(node):
            return
        if isinstance(function, ast.Name):
            self.called_names.add(function.id)
            if function.id in _EVERYTHING:
                self.changes_everything = True
            pure = function.id in _PURE_BUILTINS or (function.id[:1].isupper() and function.id in vars(builtins))
        elif isinstance(function, ast.Attribute):
            root = _root(function.value)
            if function.attr in _PURE_METHODS and not _in_place(node):
                pure = True
            elif root in _PURE_MODULES:
                pure = function.attr not in _IMPURE_FUNCTIONS and not _in_place(node)
            else:
                self._change(function.value)
            self.visit(function.value)
        else:
            self.visit(function)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            # The called function may call a function that it gets as an argument.
            self.called_names.update(name.id for name in ast.walk(argument) if isinstance(name, ast.Name))
            if not pure:
                self._change(argument)
            self.visit(argument)

    def _target(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, (ast.Attribute, ast.Subscript)):
            self._change(target)
            self.visit(target)
        names = {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
        sources = {name.id for name in ast.walk(value) if isinstance(name, ast.Name)}
        if names and sources and not isinstance(value, (ast.Compare, ast.JoinedStr)):
            self.aliases.append((names, sources))
        if isinstance(target, (ast.Tuple, ast.List)):
            for element in target.elts:
                self._target(element, value)

    def _change(self, node: ast.expr) -> None:
        """Record that the code changes the value of the expression `node`: add every name in the expression to the changed names.

        The value may be the object of any of the names, or a part of such an object.
        """
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                self.changed_names.add(part.id)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for part in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if part is not None:
                self._change(part)
                self.visit(part)
                self.called_names.update(name.id for name in ast.walk(part) if isinstance(name, ast.Name))
        for statement in node.body:
            self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]  # noqa: N815 - the same for both


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _in_place(node: ast.Call) -> bool:
    return any(
        keyword.arg in {"inplace", "out", "overwrite_x"}
        and not (isinstance(keyword.value, ast.Constant) and keyword.value.value in (False, None))
        for keyword in node.keywords
    )


def changed_names(tree: ast.AST) -> tuple[frozenset[str], frozenset[str], bool]:
    """Return the names whose objects the code in `tree` may change in place.

    Parameters
    ----------
    tree
        The parsed code, for example of a cell.

    Returns
    -------
    changed
        The names whose objects the code itself may change.
    called
        The names of functions that the code may call. `changed` lacks the changes that these functions make, so they must be analysed, too.
    everything
        True if the code uses a whole namespace, for example with ``globals()``, so that it may change the object of any name.
    """
    visitor = _Changes()
    visitor.visit(tree)
    changed = set(visitor.changed_names)
    growing = True
    while growing:
        growing = False
        for targets, sources in visitor.aliases:
            if targets & changed and not sources <= changed:
                changed |= sources
                growing = True
    return frozenset(changed), frozenset(visitor.called_names), visitor.changes_everything
