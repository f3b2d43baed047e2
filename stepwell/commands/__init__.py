"""Commands: each verb of Stepwell is one annotated Python function in a module of this package.

The decorator `command.command` registers the function as a command. It reads the arguments of the command from the function's signature, and
their help from the docstring. Python code calls the function as ``stepwell.<verb>()``; this is not possible for ``store``. In a notebook,
``%stepwell <verb>`` parses the arguments that the user typed, calls the function and prints its result; on the command line,
``stepwell <verb> [--json]`` does the same. The command line imports a module when its verb is used; in a notebook, all modules are imported with
the magics. The module ``wording`` contains the texts that notebooks and the command line share.
"""

VERBS = (
    "run", "status", "check", "why", "lineage", "materialize", "rerun", "resume", "load", "inputs", "code", "runs", "logs", "versions", "diff", "sql", "rename",
    "keep", "gc", "forget", "pack", "trust", "store", "doctor",
)  # fmt: skip
"""All verbs, in the order in which ``stepwell --help`` lists them. Each is the name of a module of this package, unless `HOMES` names another module."""
HOMES = {"run": "stepwell.batch.run"}
"""Maps each verb that is outside this package to its module. ``run`` is in `stepwell.batch`, because it executes notebooks and needs nbclient."""
