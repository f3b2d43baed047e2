"""Versions: they decide whether a stored value may be used again, and explain why not.

``encode``         the typed encoding of values, its tags, and digests; ``frames`` arrays and frames
``graph``          the nodes of what code reaches, and their digests
``references``     how one object refers to another: by value, by name and version, through attributes of modules
``loads``          the nodes of functions, cells and SELECTs; ``expand`` those of all other objects; ``classes`` what counts of classes and instances
``opcodes``        the instructions of each CPython; ``bytecode`` what code means, loads and imports; ``queries`` what texts of SQL name
``walk``           the code version of a step; ``inventory`` its parts; ``code_differences`` why two versions differ
``data``           the data version of a value
``ownership``      what is the user's, a library's, the standard library's
``left_out``       what a definition leaves out: ignored names, opaque objects, secrets; ``secrets`` and ``secret_forms`` find secrets in values and sources
``environment``    which reads of the environment count, and their digests
``library_state``  options of libraries and of the process: what counts, and setting again what a step has changed. ``library_options`` and
                   ``process_options`` are its table, ``options`` is a row of it; ``patches`` finds what was set on classes of libraries
"""
