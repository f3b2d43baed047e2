"""Which kernel runs a notebook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import NotebookKernelError

_LOADS_STEPWELL = re.compile(r"^\s*%(?:load_ext|reload_ext)\s+stepwell\b", re.MULTILINE)


def choose_kernel(notebook: Any, path: Path, asked: str | None) -> str:
    """Return the name of an installed kernel: the one asked for, else the one that the notebook names.

    A notebook without a kernelspec gets ``python3`` if it says in another way that it is Python: by its language, or by
    loading Stepwell. Anything else would be a guess.

    Raises
    ------
    NotebookKernelError
        If no kernel is named, or the named one is not installed; lists those that are.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    name = asked or notebook.metadata.get("kernelspec", {}).get("name")
    if not name and (
        notebook.metadata.get("language_info", {}).get("name") == "python"
        or any(cell.cell_type == "code" and _LOADS_STEPWELL.search(cell.source) for cell in notebook.cells)
    ):
        name = "python3"
    specs = KernelSpecManager()
    if not name:
        raise NotebookKernelError(f"the notebook {path} names no kernel", remedy=_remedy(specs.find_kernel_specs()))
    try:
        specs.get_kernel_spec(name)
    except NoSuchKernel as error:
        who = f"the kernel {name!r}" if asked else f"the kernel {name!r}, which {path} names,"
        raise NotebookKernelError(f"{who} is not installed", remedy=_remedy(specs.find_kernel_specs())) from error
    return str(name)


def _remedy(installed: dict[str, str]) -> str:
    if not installed:
        return "no kernel is installed here: pip install ipykernel"
    return "choose one with --kernel; installed: " + ", ".join(sorted(installed))
