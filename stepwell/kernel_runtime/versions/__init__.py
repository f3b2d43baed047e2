"""Versions: what decides whether a stored value may be used again, and why not.

``walk``         the code version of a step; ``graph`` digests what it reaches, ``expand`` takes each object apart,
                 ``modules`` follows attributes of modules, ``imported`` of those that code imports itself, ``spoken`` what reads
                 annotations and documentation,
                 ``naming`` and ``ownership`` tell what counts by name and version, ``bytecode`` (with ``nops``) what code loads,
                 ``classes`` what of a class counts, ``reduction`` what of an instance
``data``         the data version of a value; ``encode`` is the typed encoding that both share, ``atoms`` its leaves, ``frames``
                 arrays and frames
``reads``        what a step read of the world while it ran: files, folders, the environment, assets
``library_state`` options of libraries and of the process: what counts, and setting again what a step has changed;
                 ``library_options`` is their table
``explain``      why two code versions differ; ``inventory`` lists the parts of one, with ``sources``, ``paths`` and ``secrets``
"""
