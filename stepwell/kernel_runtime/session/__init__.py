"""The session of a kernel: its registry, stores, settings and runs.

===============  ===========================================================================
``session``      `Session`: stores, events, states, values and runs of one kernel or process
``requests``     conversion of targets in any form to definitions and keys; the notebook and the location of the store
``inspection``   definitions, their code and a store, as one request sees them; plans of single steps, and what is checked before a run
``reasons``      the causes of a state; ``explanation`` follows them upstream, for ``%why``
``acceptance``   acceptance of an edit that does not affect results, and its revocation
``history``      the versions of a key, and renaming
``differences``  comparison of two values or versions; ``frame_differences`` compares frames
``sql``          the text of SQL assets, and the frames that rows become
===============  ===========================================================================

``session`` uses ``requests``, ``inspection``, ``history`` and ``sql``; ``inspection`` uses ``reasons``. The other modules are functions over a
session.
"""

from stepwell.kernel_runtime.session.session import Session, get_session

__all__ = ["Session", "get_session"]
