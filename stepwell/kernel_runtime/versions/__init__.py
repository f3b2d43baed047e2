"""Versions of code and data, which determine whether a stored value can be reused.

``encode``           the typed encoding of values, its tags, and digests
``frames``           the encoding of arrays and frames
``graph``            the graph of the objects that code reaches, and its digests
``references``       how one object refers to another: by value, by name and version, through attributes of modules
``loads``            the nodes of functions, cells and SELECTs
``expand``           the nodes of all other objects
``classes``          the parts of classes and instances that count
``opcodes``          the instructions of each CPython version
``bytecode``         the behaviour, loads and imports of code
``queries``          the names and files in SQL and expressions
``walk``             the code version of a step
``inventory``        the parts of a code version
``data``             the data version of a value
``ownership``        the owner of a module: the user, a library or the standard library
``left_out``         exceptions from code versions: ignored names, opaque objects, secrets
``secrets``          the search for secrets in values, sources and messages
``secret_forms``     names and forms of secrets
``environment``      the reads of environment variables that count, and their digests
``library_state``    options of libraries and of the process: those that count, and how a step's changes are restored
``options``          one row of the table of options
``library_options``  the rows of libraries
``process_options``  the rows of the process and of the standard library
``patches``          attributes that the user has set on classes and modules of libraries
"""
