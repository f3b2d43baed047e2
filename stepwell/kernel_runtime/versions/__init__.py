"""Versions: they decide whether a stored value may be used again, and explain why not.

``walk``           the code version of a step; ``graph`` digests what it reaches, ``expand`` takes each object apart, ``modules`` follows attributes
                   of modules, ``graph`` and ``ownership`` decide what counts by name and version, ``bytecode`` what code means and loads,
                   ``classes`` what of a class counts, ``reduction`` what of an instance
``data``           the data version of a value; ``encode`` is the typed encoding that both share, ``atoms`` its leaves, ``frames`` arrays and frames
``environment``    which reads of the environment count, and their digests
``library_state``  options of libraries and of the process: what counts, and setting again what a step has changed; ``library_options`` is their table
``left_out``       what a definition leaves out: ignored names, opaque objects, secrets
``inventory``      the parts of a code version; ``code_differences`` explains why two versions differ
"""
