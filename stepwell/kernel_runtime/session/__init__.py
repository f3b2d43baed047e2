"""What one kernel holds: the registry, the store, settings and one queue of runs.

=================  ===========================================================================
``kernel``         `Session`: runs; what the faces (magics, widgets, batch) and the public functions use
``looking``        what can be asked at any moment: states, reasons, the lineage, stored values
``past``           time and size: versions, differences, renaming, forgetting, what is kept; ``keeping`` has them as public functions
``history``        the versions of a key, and which one is meant; ``differences`` between two, a package
``renaming``       carrying results over to another key; ``retaining`` sets rules of what is kept
``sharing``        packs, and trusting what somebody else stored; ``waiting`` says that a step waits in a plain process
``querying``       SELECTs over stored values and over the catalog
``holding``        the registry, stores by directory, the namespace, subscribers
``preparation``    what a plan reads from the store before its first step
``single_steps``   plans of single steps: re-running one, resuming a run
``currents``       what a key means when several notebooks have defined it
``explanation``    why a step is in its state; ``origins`` follows causes upstream; ``acceptance`` of an edit that does not matter
``project``        where the store is, and which notebook or script this process is
``requests``       targets in any form to definitions and keys
``selects``        SQL assets: `sql_asset`, and what ``%%sql_asset`` shares with it; ``sql`` runs SELECTs and makes frames of their rows
``functions``      the public functions; ``runner`` is what definitions reach through their slot
=================  ===========================================================================
"""

from stepwell.kernel_runtime.session.kernel import Session, get_session

__all__ = ["Session", "get_session"]
