"""Commands: each verb of Stepwell is one function in one module, from which every interface is derived.

The decorator `command`, in the module ``command``, registers a typed Python function. The arguments are read from the signature, their help
from the docstring. `stepwell.<verb>()` is the function itself; ``%stepwell <verb>`` and ``stepwell <verb> [--json]`` parse a line, call the
function and render its result. `VERBS` lists the modules in the order of the help; a module is imported when its verb is first used. The module
``wording`` contains the texts that several interfaces use.
"""

VERBS = (
    "run", "status", "check", "why", "lineage", "materialize", "rerun", "resume", "load", "inputs", "code", "runs", "logs", "versions", "diff", "sql", "rename",
    "keep", "gc", "forget", "pack", "trust", "store", "doctor",
)  # fmt: skip
"""Verbs with a module of the same name, in the order of ``stepwell --help``."""
HOMES = {"run": "stepwell.batch.run"}
"""Modules of verbs outside this package. ``run`` is in `stepwell.batch`, because it executes notebooks and needs nbclient."""
