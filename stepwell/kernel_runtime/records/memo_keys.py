"""The memo key: the digest of everything that a step's result can depend on."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from hashlib import blake2b

from stepwell.kernel_runtime.records.materializations import InputVersion, Read

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


_PROVENANCE = "from:"


def provenance(memo: str, reads: Iterable[Read], output: str) -> str:
    """Return what stands for the data version of a value that cannot be stored: the digest of all that it was computed from."""
    text = repr((memo, sorted((read.kind, read.name, read.digest) for read in reads), output))
    return _PROVENANCE + blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def is_provenance(version: str) -> bool:
    """Return True for what `provenance` returned: it says where a value is from, and nothing of what it is now."""
    return version.startswith(_PROVENANCE)


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
    values: list[tuple[str, str]] = []
    order: list[tuple[str, str]] = []
    for item in inputs:
        if item.kind == "value":
            values.append((item.name, item.version))
        else:
            order.append((item.key, item.version))
    order.sort()
    # The text of a tuple of strings is different for different tuples.
    text = repr(
        (step_key, code_version, values, order, config, tuple(selected_outputs), partition, tuple(declared), PYTHON)
    )
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
