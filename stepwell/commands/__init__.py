"""Commands: each verb of Stepwell is one annotated Python function in a module of this package.

The decorator `command.command` registers the function as a command. It reads the arguments of the command from the function's signature, and
their help from the docstring. Python code calls the function as ``stepwell.<verb>()``; only ``store`` has no such name. ``%stepwell <verb>`` in
a notebook and ``stepwell <verb> [--json]`` on the command line parse the arguments that the user typed, call the function and print its result.
On the command line, a module is imported when its verb is used; in a notebook, all are imported with the magics. The module ``wording`` contains
the texts that notebooks and the command line share.
"""

VERBS = (
    "run", "status", "check", "why", "lineage", "materialize", "rerun", "resume", "load", "inputs", "code", "runs", "logs", "versions", "diff", "sql", "rename",
    "keep", "gc", "forget", "pack", "trust", "store", "doctor",
)  # fmt: skip
"""All verbs, in the order in which ``stepwell --help`` lists them. Each is the name of a module of this package, unless `HOMES` names another module."""
HOMES = {"run": "stepwell.batch.run"}
"""The modules outside this package that contain verbs, by verb. ``run`` is in `stepwell.batch`, because it executes notebooks and needs nbclient."""
