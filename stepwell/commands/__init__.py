"""Commands: each verb of Stepwell is written once, in its own module, and every interface is derived from it.

The decorator `command`, in the module ``command``, registers a typed Python function. The arguments are read from the signature,
their help from the docstring. `stepwell.<verb>()` is the function itself; ``%stepwell <verb>`` and ``stepwell <verb> [--json]`` parse a line into its arguments
and render its result. `VERBS` lists the modules in the order in which the help shows them; a module is imported when its verb is first used. ``wording`` has texts that several
interfaces use.
"""

VERBS = (
    "run", "status", "check", "why", "lineage", "materialize", "rerun", "resume", "load", "inputs", "code", "runs", "logs", "versions", "diff", "sql", "rename",
    "keep", "gc", "forget", "pack", "trust", "store", "doctor",
)  # fmt: skip
"""Verbs with a module of the same name, in the order of ``stepwell --help``."""
HOMES = {"run": "stepwell.batch.run"}
"""Modules of verbs that are outside this package: ``run`` executes notebooks and needs nbclient."""
