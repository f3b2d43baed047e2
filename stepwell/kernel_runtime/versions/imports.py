"""What import statements inside code bind, and which attributes of a module are read, found in the instructions.

``import lmod`` inside a function binds a local, so no global shows what is reached. The instructions are followed instead: the names that
an import statement binds, and the attributes read from these names, in the code and in the functions nested in it. A name that is used
in any other way (passed on, assigned) stands for its whole module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import TypeAlias

from stepwell.kernel_runtime.versions import opcodes
from stepwell.kernel_runtime.versions.opcodes import Instruction

Chains: TypeAlias = tuple[tuple[str, ...], ...] | None
"""Attributes that are read at once from a name: ``lmod.sub.f`` and ``lmod.K`` are ``(("sub", "f"), ("K",))``. None where the name is used otherwise."""


@dataclass(frozen=True, slots=True)
class Imported:
    """One name that an import statement binds."""

    module: str
    """The module as the statement names it; with a level, relative to the package."""
    level: int
    item: str
    """What of the module is bound: ``f`` of ``from lmod import f``, ``*`` for everything; empty for the module itself."""
    outermost: bool
    """Whether the outermost package is bound: ``import a.b`` binds ``a``."""
    chains: Chains


@lru_cache(maxsize=1024)
def imported(*codes: CodeType) -> tuple[Imported, ...]:
    """Return what import statements bind in codes that share their names: those of a function, or of the parts of a cell."""
    bound: dict[str, list[tuple[str, int, str, bool]]] = {}
    scopes = [(code, _instructions(code)) for code in _nested(codes)]
    for _, instructions in scopes:
        for name, what in _bindings(instructions):
            bound.setdefault(name, []).append(what)
    return tuple(
        Imported(*what, _chains(scopes, name)) for name, several in bound.items() for what in dict.fromkeys(several)
    )


@lru_cache(maxsize=1024)
def chains_read(code: CodeType, name: str) -> Chains:
    """Return the attributes that a function reads of a module that its closure holds under a name."""
    return _chains([(each, _instructions(each)) for each in _nested((code,))], name)


def _chains(scopes: list[tuple[CodeType, list[Instruction]]], name: str) -> Chains:
    chains: dict[tuple[str, ...], None] = {}
    for code, instructions in scopes:
        for read, chain in _reads(code, instructions):
            if read == name:
                if not chain:
                    return None
                chains[chain] = None
    return tuple(chains)


def _nested(codes: tuple[CodeType, ...]) -> list[CodeType]:
    found = list(codes)
    for code in found:
        found.extend([constant for constant in code.co_consts if type(constant) is CodeType])
    return found


def _instructions(code: CodeType) -> list[Instruction]:
    """Return the instructions of a code object, each with the name of its variable where it is of one."""
    if opcodes.untested():
        return []
    inner = [name for name in code.co_cellvars if name not in code.co_varnames]
    variables = (*code.co_varnames, *inner, *code.co_freevars)
    return [
        (op, 0, variables[argument]) if op in opcodes.VARIABLES else (op, argument, value)
        for op, argument, value in opcodes.decode(code).instructions
    ]


def _bindings(steps: list[Instruction]) -> Iterator[tuple[str, tuple[str, int, str, bool]]]:
    """Yield each name that an import statement binds, and to what."""
    for at, (op, _, module) in enumerate(steps):
        if op != opcodes.IMPORT_NAME:
            continue
        level, wanted = steps[at - 2][2], steps[at - 1][2]
        if wanted == ("*",):
            yield "*", (module, level, "*", False)
        elif wanted:
            following = at
            for _ in wanted:
                following = _next(steps, following + 1, opcodes.IMPORT_FROM)
                yield str(steps[following + 1][2]), (module, level, steps[following][2], False)
        else:
            # ``import a.b as c`` takes the submodule from the package before it stores it.
            stored = at + 1
            while steps[stored][0] not in opcodes.STORES:
                stored += 1
            yield str(steps[stored][2]), (module, level, "", stored == at + 1)


def _next(steps: list[Instruction], at: int, wanted: int) -> int:
    while steps[at][0] != wanted:
        at += 1
    return at


def _reads(code: CodeType, steps: list[Instruction]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each name that is read, with the attributes that are read from it at once; an empty chain if none is."""
    shared = {*code.co_cellvars, *code.co_freevars}
    for at, (op, _, name) in enumerate(steps):
        # The cell itself is loaded for the closure of a nested function, which is looked at by itself.
        if op in opcodes.LOADS and not (op in opcodes.CLOSURE_LOADS and name in shared):
            yield name, opcodes.chain(steps, at)
