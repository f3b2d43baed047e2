"""The session of a kernel: its registry, stores, settings and runs.

===============  ===========================================================================
``session``      `Session`: stores, events, states, values and runs of one kernel or process
``requests``     conversion of targets in any form to definitions and keys
``inspection``   definitions, their code and a store, as one request sees them
``preparation``  plans of single steps, and the checks and notices before the first step of a run
``project``      the location of the store, and the notebook or script of this process
``reasons``      the causes of a state; ``explanation`` follows them upstream, for ``%why``
``acceptance``   acceptance of an edit that does not affect results, and its revocation
``history``      the versions of a key, and renaming
``differences``  comparison of two values or versions; ``frame_differences`` compares frames
``sql``          the text of SQL assets, and the frames that rows become
===============  ===========================================================================

`Session` uses ``requests`` to ``reasons``, ``history`` and ``sql``. The other modules are functions over a session.
"""

from stepwell.kernel_runtime.session.session import Session, get_session

__all__ = ["Session", "get_session"]
