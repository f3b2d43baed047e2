"""The parts of a code version: all objects that the code of a step reaches, each with its source code, value or version.

Parts are made for explanations, and for steps that are about to run. Whether a step is reused does not depend on them. The source code of a
function is found with the line numbers in the bytecode. ``inspect.getsource`` would parse the file to find the end of the function, which takes
too long for a run of a thousand steps.
"""

from __future__ import annotations

import builtins
import functools
import linecache
import re
from collections.abc import Callable, Iterable
from operator import itemgetter
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody, place_of, place_of_name
from stepwell.kernel_runtime.records.materializations import CodeKind, CodePart
from stepwell.kernel_runtime.versions.bytecode import documentation_of, facts
from stepwell.kernel_runtime.versions.classes import reduced
from stepwell.kernel_runtime.versions.encode import ATOMS, Tag, atoms_only, encode, hexdigest, refuse
from stepwell.kernel_runtime.versions.encode import digest as plain_digest
from stepwell.kernel_runtime.versions.environment import Keyed
from stepwell.kernel_runtime.versions.graph import IGNORED, VALUE, Node, extended_path
from stepwell.kernel_runtime.versions.left_out import Ignored
from stepwell.kernel_runtime.versions.ownership import OURS, STANDARD, owner
from stepwell.kernel_runtime.versions.secrets import (
    HIDDEN,
    Environment,
    environment_now,
    hidden_source,
    holds_secret,
)

if TYPE_CHECKING:
    from stepwell.kernel_runtime.versions.expand import Expander


def definition_place(code: CodeType) -> str:
    """Return the source location of a code object, for example ``cell 9, line 1`` or ``helpers.py:12``; empty for code without a file or cell."""
    place = place_of(code)
    return "" if place.startswith("<") else place


def source(code: CodeType) -> str | None:
    """Return the source code of a code object without its indentation; None if the source code is not available."""
    lines = linecache.getlines(code.co_filename)
    first = code.co_firstlineno
    if not 0 < first <= len(lines):
        return None
    last = _last_line(code)
    # No instruction has the line number of a closing bracket at the end of a definition.
    while last < len(lines) and _CLOSING.match(lines[last]):
        last += 1
    block = lines[first - 1 : last]
    head = block[0]
    margin = len(head) - len(head.lstrip())
    if margin:
        pad = head[:margin]
        block = [line[margin:] if line.startswith(pad) else line for line in block]
    return "".join(block)


_CLOSING = re.compile(r"^\s*[\])}]+[,:]?\s*$")


_END_LINE = itemgetter(1)


def _last_line(code: CodeType) -> int:
    last = code.co_firstlineno
    stack = [code]
    while stack:
        item = stack.pop()
        # Without a loop in Python, because the functions of all steps are examined.
        last = max(last, max(filter(None, map(_END_LINE, item.co_positions())), default=0))
        stack.extend([constant for constant in item.co_consts if type(constant) is CodeType])
    return last


_LONG = 200
_MOST_ITEMS = 1_000
"""An attribute of an instance is listed as a separate part only if its value has at most this number of items."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_MOST_PARTS = 5_000


def parts(
    expander: Expander,
    body: object,
    path: str,
    extra: Iterable[tuple[str, object]],
    *,
    digested: Callable[[Any], Node | None],
    documented: bool = False,
    ignore: tuple[str, ...] = (),
) -> tuple[CodePart, ...]:
    """Return the parts of a step's code version: the body, then the objects that the body reaches, nearest first.

    Parameters
    ----------
    expander
        Creates the nodes from which the references of each object are read.
    body, path, extra
        As in `CodeWalk.of`.
    digested
        Returns the node of an object if the code walk has digested it, else None.
    documented
        True if annotations and documentation are in the code version.
    ignore
        The names in the option ``ignore``. The list of these names is a part itself, so that a change of the option is explained.
    """
    result: list[CodePart] = []
    environment = expander.environment = expander.environment or environment_now()
    digest = expander.part_digest = expander.part_digest or _part_digest(expander.keyed)
    seen: set[int] = {id(body)}
    packages: set[str] = set()
    alive: list[Any] = []
    queue: list[tuple[str, Any, bool, str]] = [(path, body, True, "")]
    for name, item in extra:
        queue.append((f"{path}({name})", item, False, ""))
    for base, item, is_body, bound in queue:
        if len(result) >= _MOST_PARTS:
            break
        alive.append(item)
        trace: list[tuple[str, Any, bytes | None]] = []
        node, written_as = _node_of(expander, item, digested(item), trace)
        part = _part(base, item, digest(written_as), environment, is_body=is_body, bound=bound)
        result.append(part)
        for name, value in _plain_attributes(item, expander.ignored) if part.kind == "global" else ():
            shown = _text(name, value, environment)
            result.append(CodePart(f"{base}.{name}", "global", digest(encode(value, refuse)), shown, bound))
        texts = documentation_of(item) if documented else None
        if texts is not None:
            # The default ``repr`` of an object contains the object's address, which must not change the digest of the part.
            text = _ADDRESS.sub("", f"{texts[0] or {}} {texts[1] or ''}").strip()
            result.append(CodePart(f"{base}.signature", "global", digest(text.encode()), text if len(text) <= _LONG else None))
        for name, key in node.assets:
            result.append(CodePart(extended_path(base, name), "name", hexdigest(key.encode()), key))
        for label, value, written in trace:
            if written is None:
                if id(value) not in seen:
                    seen.add(id(value))
                    queue.append((extended_path(base, label), value, False, _bound_in(item, label, expander.namespace)))
            elif type(value) in ATOMS or type(value) is tuple:
                if label and label[0] != "(" and label != "__name__":
                    shown = _text(label, value, environment)
                    cell = _bound_in(item, label, expander.namespace)
                    result.append(CodePart(extended_path(base, label), "global", digest(written), shown, cell))
            else:
                package = _package(value)
                if package and package not in packages:
                    packages.add(package)
                    name, _, version = package.partition(" ")
                    result.append(CodePart(extended_path(base, name), "package", hexdigest(package.encode()), version))
    if ignore:
        names = ", ".join(ignore)
        result.append(CodePart(f"{path}{IGNORED}", "global", digest(names.encode()), names))
    return tuple(result)


def _node_of(expander: Expander, item: Any, known: Node | None, trace: list[tuple[str, Any, bytes | None]]) -> tuple[Node, bytes]:
    """Return the node of an object, and the bytes from which the digest of the object's code part is computed.

    Parameters
    ----------
    known
        The node of the object if the code walk has digested it, else None.
    trace
        A list to which the references of the object are added, each as in `Writer.trace`.
    """
    if known is not None and known.shape == VALUE and not known.edges and known.digest is not None:
        # The code walk has digested this object, which may be large and refers to no other object.
        return known, known.digest
    if known is not None and type(item) is FunctionType:
        code = Tag.FUNCTION + facts(item.__code__).blob
        if plain_digest(code) == known.digest:
            # The digest covers nothing but the function's code, so the function has no references to trace.
            return known, code
    expander.trace = trace
    try:
        node = expander.node(item)
    finally:
        expander.trace = None
    content = b"".join(node.content)
    return node, plain_digest(content) if node.shape == VALUE and not node.pending else content


def _part_digest(keyed: Keyed) -> Callable[[bytes], str]:
    """Return the function that digests code parts. It uses `keyed`, because a digest without a key could reveal a short value.

    Each digest begins with eight digits that identify the key.
    """
    name = keyed(b"parts")[:8]
    return lambda data: name + keyed(data)


def _plain_attributes(item: Any, ignored: Ignored) -> list[tuple[str, Any]]:
    """Return the attributes of an instance that are listed as separate parts: those that are digested and hold plain data.

    The list is empty unless `item` is an instance of a class of the user.
    """
    kind = type(item)
    if kind.__module__ == builtins.__name__ or _package(kind) or owner(kind.__module__) == STANDARD:
        return []
    try:
        form = reduced(item)
    except Exception:
        # Pickle methods of the user may raise any exception. The reason is already recorded in the node of the instance.
        return []
    state = form.parts[3] if form.name == "instance" else None
    held = state if type(state) is tuple else (state,)
    return [
        (name, value)
        for attributes in held
        if type(attributes) is dict
        for name, value in attributes.items()
        if type(name) is str and (id(item), name) not in ignored.attributes and _is_plain(value)
    ]


def _is_plain(value: Any) -> bool:
    if type(value) is dict:
        return len(value) <= _MOST_ITEMS and atoms_only(value) and atoms_only(value.values())
    if type(value) in {list, tuple}:
        return len(value) <= _MOST_ITEMS and atoms_only(value)
    return type(value) in ATOMS


def _bound_in(reader: Any, label: str, notebook: dict[str, Any] | None) -> str:
    """Return the label of the cell that bound the global to which a reference leads, for example ``cell 9``.

    The result is empty if the reference does not lead to a global of the notebook.

    Parameters
    ----------
    reader
        The function or cell that refers to the global.
    label
        The label of the reference. For a global, this is its name.
    notebook
        The notebook's globals; None without a notebook.
    """
    if issubclass(type(reader), CellBody | SqlBody):
        scope = reader.globals
    else:
        function = _underlying(reader)
        scope = function.__globals__ if type(function) is FunctionType else None
    return place_of_name(label) if scope is notebook and scope is not None and label.isidentifier() else ""


def _part(path: str, item: Any, digest: str, environment: Environment, *, is_body: bool, bound: str) -> CodePart:
    kind: CodeKind
    text: str | None = None
    place = ""
    if issubclass(type(item), CellBody):
        return CodePart(path, "body", digest, hidden_source(item.source, environment), item.where)
    if issubclass(type(item), SqlBody):
        return CodePart(path, "sql", digest, hidden_source(item.text, environment), item.where)
    inner = item if type(item) is FunctionType else _underlying(item)
    if issubclass(type(inner), FunctionType):
        kind = "body" if is_body else "function"
        text, place = source(inner.__code__), definition_place(inner.__code__)
        text = hidden_source(text, environment) if text is not None else None
    elif issubclass(type(item), type):
        kind = "class"
        text, place = _class_source(item)
    elif issubclass(type(item), ModuleType):
        kind, place = "module", item.__name__
    else:
        kind = "body" if is_body else "global"
        text, place = _text(path.rpartition(" ")[2], item, environment), bound
    return CodePart(path, kind, digest, text, place)


def _underlying(item: Any) -> Any:
    if issubclass(type(item), (MethodType, staticmethod, classmethod)):
        return item.__func__
    if issubclass(type(item), property):
        return item.fget
    if issubclass(type(item), functools._lru_cache_wrapper):  # noqa: SLF001 - the type has no public name
        return item.__wrapped__
    return item


def _class_source(cls: type) -> tuple[str | None, str]:
    """Return a pair: None in place of the source code, which explanations do not show for a class, and the location of the class.

    The location is the file or cell in which the first method of the class is defined; it is empty if the class has no method.
    """
    for value in vars(cls).values():
        function = _underlying(value)
        if (
            issubclass(type(function), FunctionType)
            and function.__module__ == cls.__module__
            and not function.__code__.co_filename.startswith("<")
        ):
            return None, definition_place(function.__code__).partition(":")[0]
    return None, ""


def _text(label: str, value: Any, environment: Environment) -> str | None:
    """Return the text that a code part shows for a small value; None if the value is large or has no short text, `HIDDEN` if it may be a secret."""
    if type(value) not in ATOMS and type(value) not in {list, tuple, dict, set, frozenset, range}:
        return None
    if issubclass(type(value), (str, bytes)) and len(value) > _LONG:
        return None
    if issubclass(type(value), (list, tuple, dict, set, frozenset)) and len(value) > _LONG // 4:
        return None
    text = repr(value)
    if len(text) > _LONG or " at 0x" in text:
        return None
    return HIDDEN if holds_secret(label, value, environment=environment) or environment.has(text) else text


def _package(value: Any) -> str:
    if issubclass(type(value), ModuleType):
        library = owner(value.__name__)
    elif issubclass(type(value), str):
        library = owner(value)
    elif issubclass(type(value), FunctionType):
        library = owner(value.__globals__.get("__name__"))
    elif issubclass(type(value), (type, BuiltinFunctionType)):
        library = owner(value.__module__) if value.__module__ != builtins.__name__ else STANDARD
    else:
        return ""
    return "" if library is None or library in {STANDARD, OURS} else library
