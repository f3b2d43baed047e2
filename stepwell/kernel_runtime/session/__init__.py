"""The session of a kernel: its registry, stores, settings and runs.

===============  ===========================================================================
``session``      `Session`: stores, events, states, values and runs of one kernel or process
``requests``     conversion of targets in any form to definitions and keys; the notebook and the location of the store
``inspection``   the definitions, their code and the store as one request sees them; plans of single steps; the checks before a run
``reasons``      why the stored results of a step cannot be reused
``explanation``  why a step is in its state and why it last ran, with the causes upstream, for ``%why``
``acceptance``   acceptance of an edit that does not affect results, and its revocation
``history``      the versions of a key, and renaming
``differences``  comparison of two values or versions
``frame_differences``  comparison of two frames
``sql``          the statements of SQL assets, and the frames made from the rows of their results
===============  ===========================================================================

``session`` uses ``requests``, ``inspection``, ``history`` and ``sql``; ``inspection`` uses ``reasons``. The functions of ``explanation`` and
``acceptance`` take a session. ``differences`` takes a store, or two values.
"""

from stepwell.kernel_runtime.session.session import Session, get_session

__all__ = ["Session", "get_session"]
