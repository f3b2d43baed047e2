"""Versions: they decide whether a stored value may be used again, and explain why not.

``encode``         the typed encoding of values, its tags, and digests; ``frames`` arrays and frames
``graph``          the graph of the objects that code reaches, and its digests
``references``     how one object refers to another: by value, by name and version, through attributes of modules
``loads``          the nodes of functions, cells and SELECTs; ``expand`` those of all other objects; ``classes`` the parts of classes and instances that count
``opcodes``        the instructions of each CPython; ``bytecode`` the meaning, loads and imports of code; ``queries`` the names in texts of SQL
``walk``           the code version of a step; ``inventory`` its parts; ``code_differences`` why two versions differ
``data``           the data version of a value
``ownership``      who owns a module: the user, a library or the standard library
``left_out``       exceptions of a definition: ignored names, opaque objects, secrets; ``secrets`` and ``secret_forms`` find secrets in values and sources
``environment``    which reads of the environment count, and their digests
``library_state``  options of libraries and of the process: which of them count, and how the changes of a step are restored. ``library_options``
                   and ``process_options`` are its table, ``options`` is a row of it; ``patches`` finds attributes set on classes of libraries
"""
