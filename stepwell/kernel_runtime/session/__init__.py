"""What one kernel holds: the registry, the store, settings and one queue of runs.

===============  ===========================================================================
``session``      `Session`: stores, events, states, values and runs of one kernel or process
``requests``     targets in any form to definitions and keys
``inspection``   definitions, their code and a store, as one request sees them
``preparation``  plans of single steps, and the checks and notices before the first step of a run
``project``      where the store is, and which notebook or script this process is
``reasons``      the causes of a state; ``explanation`` follows them upstream, for ``%why``
``acceptance``   an edit that does not matter: accepted, and revoked
``history``      the versions of a key, and renaming
``differences``  how two values or versions differ; ``frame_differences`` compares frames in DuckDB
``sql``          the text of SQL assets, and the frames that rows become
===============  ===========================================================================

The modules below ``session`` in this order take its parts: ``requests`` to ``reasons``, and ``sql``. The others are functions over a session.
"""

from stepwell.kernel_runtime.session.session import Session, get_session

__all__ = ["Session", "get_session"]
