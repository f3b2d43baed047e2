"""The memo key: the digest of everything that a step's result can depend on."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from hashlib import blake2b

from stepwell.kernel_runtime.records.materializations import InputVersion

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def memo_key(
    step_key: str,
    code_version: str,
    inputs: Iterable[InputVersion],
    *,
    config: str = "",
    selected_outputs: Iterable[str] = (),
    partition: str = "",
    declared: Iterable[tuple[str, str]] = (),
) -> str:
    """Return the memo key of a step as 32 hexadecimal digits (DESIGN, section 1).

    Parameters
    ----------
    inputs
        Values in the order of the parameters; order edges in any order, they are sorted by key here.
    config
        A canonical text of the configuration of the op and of the resources that it requires.
    selected_outputs
        Where the step can see which of its outputs are asked for.
    partition
        The partition key or range.
    declared
        Declared files and environment names, each with its digest.
    """
    values: list[str] = []
    order: list[tuple[str, str]] = []
    for item in inputs:
        if item.kind == "value":
            values.append(f"{item.name}\0{item.version}")
        else:
            order.append((item.key, item.version))
    order.sort()
    digest = blake2b(digest_size=16)
    # Lengths before parts, so that no two different lists give one text.
    for part in (
        step_key,
        code_version,
        *_framed(values),
        *_framed(f"{key}\0{version}" for key, version in order),
        config,
        *_framed(selected_outputs),
        partition,
        *_framed(f"{name}\0{version}" for name, version in declared),
        PYTHON,
    ):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.hexdigest()


def _framed(parts: Iterable[str]) -> list[str]:
    found = list(parts)
    return [str(len(found)), *found]
