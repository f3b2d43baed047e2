"""What one kernel holds: the registry, the store, settings and one queue of runs.

=================  ===========================================================================
``kernel``         `Session`: runs; what the faces and the commands use
``looking``        what can be asked at any moment: states, reasons, the lineage, stored values
``past``           time and size: versions, renaming, forgetting, rules of what is kept
``holding``        the registry, stores by directory, the namespace, subscribers, notices
``querying``       SELECTs over stored values and the catalog; ``sql`` reads and runs them, and makes frames of their rows
``history``        the versions of a key, and renaming
``differences``    how two values or versions differ; ``frame_differences`` compares frames in DuckDB
``preparation``    plans of single steps, and what a plan reads from the store before its first step
``explanation``    why a step is in its state; ``origins`` follows causes upstream; ``acceptance`` of an edit that does not matter
``requests``       targets in any form to definitions and keys
``project``        where the store is, and which notebook or script this process is
``sharing``        packs, and trusting values of another key; ``retaining`` sets rules of what is kept
``functions``      public functions that are no commands, and what definitions reach through their slot
=================  ===========================================================================
"""

from stepwell.kernel_runtime.session.kernel import Session, get_session

__all__ = ["Session", "get_session"]
