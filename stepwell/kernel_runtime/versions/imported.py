"""What code reads of the modules that it imports itself.

``import lmod`` inside a function binds a local, so that no global tells what is reached. Here the instructions are followed instead: which
names an import statement binds, and which attributes are read from these names, in the code itself and in the functions nested in it.
A name that is used in any other way (passed on, assigned to) stands for its whole module.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import TypeAlias

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


_LOADS = (
    "LOAD_FAST",
    "LOAD_NAME",
    "LOAD_GLOBAL",
    "LOAD_DEREF",
    "LOAD_CLASSDEREF",
    "LOAD_FROM_DICT",
    "STORE_FAST_LOAD_FAST",
)
_ATTRIBUTES = frozenset(("LOAD_ATTR", "LOAD_METHOD"))


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
def read_of(code: CodeType, name: str) -> Chains:
    """Return the attributes that a function reads of a module that its closure holds under a name."""
    return _chains([(each, _instructions(each)) for each in _nested((code,))], name)


def _chains(scopes: list[tuple[CodeType, list[dis.Instruction]]], name: str) -> Chains:
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


def _instructions(code: CodeType) -> list[dis.Instruction]:
    return [each for each in dis.get_instructions(code) if each.opname not in {"CACHE", "EXTENDED_ARG", "PUSH_NULL"}]


def _bindings(instructions: list[dis.Instruction]) -> Iterator[tuple[str, tuple[str, int, str, bool]]]:
    """Yield each name that an import statement binds, and to what."""
    constants: list[object] = []
    at = 0
    while at < len(instructions):
        instruction = instructions[at]
        at += 1
        if instruction.opcode in dis.hasconst:
            constants.append(instruction.argval)
        if instruction.opname != "IMPORT_NAME":
            continue
        level, wanted = constants[-2:]
        assert isinstance(level, int)
        module = str(instruction.argval)
        if wanted == ("*",):
            yield "*", (module, level, "*", False)
        elif isinstance(wanted, tuple):
            for _ in wanted:
                while instructions[at].opname != "IMPORT_FROM":
                    at += 1
                item = str(instructions[at].argval)
                yield _stored(instructions[at + 1]), (module, level, item, False)
                at += 1
        else:
            # Between the import and the name of `import a.b as c` lies what is needed to get at b.
            plain = not instructions[at].opname.startswith("IMPORT_FROM")
            while not instructions[at].opname.startswith("STORE_"):
                at += 1
            yield _stored(instructions[at]), (module, level, "", plain)


def _stored(instruction: dis.Instruction) -> str:
    name = instruction.argval
    return str(name[0] if type(name) is tuple else name)


def _reads(code: CodeType, instructions: list[dis.Instruction]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each name that is read, with the attributes that are read from it at once; an empty chain if none is."""
    shared = {*code.co_cellvars, *code.co_freevars}
    for at, instruction in enumerate(instructions):
        operation = instruction.opname
        if not operation.startswith(_LOADS):
            continue
        argument = instruction.argval
        names = argument if type(argument) is tuple else (argument,)
        if operation.startswith("STORE_"):
            names = names[1:]
        for name in names[:-1]:
            yield name, ()
        if operation.startswith("LOAD_FAST") and names[-1] in shared:
            # The cell itself, for the closure of a nested function, which is looked at by itself.
            continue
        chain = []
        for following in instructions[at + 1 :]:
            if following.opname not in _ATTRIBUTES:
                break
            chain.append(str(following.argval))
        yield names[-1], tuple(chain)
