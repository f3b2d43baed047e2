"""Versions of code and data, which determine whether a stored value can be reused.

A code walk makes a graph of the objects that a step's code reaches, with one node for each object. The digest of this graph is the code
version. "The user's code" is the code of the notebook and of local modules.

``encode``           the typed encoding of values, its tags, and digests
``frames``           the encoding of arrays and frames
``graph``            the graph of the objects that code reaches, and its digests
``references``       how a node refers to another object: by the value of this object, by its name and version, or by a separate node
``loads``            the nodes of functions, cells and SELECTs
``expand``           the nodes of all other objects
``classes``          the parts of classes and instances that are digested
``opcodes``          the instructions of each CPython version
``bytecode``         the behaviour of code, the names that it loads, and its imports
``queries``          the names and files in SQL and in expressions of pandas
``walk``             the code version of a step
``inventory``        the parts of a code version, for explanations
``data``             the data version of a value
``ownership``        the owner of a module: the user, a library or the standard library
``left_out``         objects whose content is not in code versions: ignored names, opaque objects, secrets
``secrets``          the search for secrets in values, source code and messages
``secret_forms``     names and formats of secrets
``environment``      the reads of environment variables that are recorded, and their digests
``library_state``    options of libraries and of the process: which are in code versions, and how a reuse restores what a step changed
``options``          the type `Library`: functions that read and set the options of one library
``library_options``  the table of all options, with the functions for libraries
``process_options``  the functions for options of the process and of the standard library
``patches``          attributes that the user has set on classes and modules of libraries
"""
