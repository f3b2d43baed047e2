"""What one kernel holds: the registry, the store, settings and one queue of runs.

===============  ===========================================================================
``kernel``       `Session`: what the faces (magics, widgets, batch) and the public functions use
``project``      where the store is, and which notebook or script this process is
``requests``     targets in any form to definitions and keys
``explanation``  why a step is in its state
``functions``    the public functions: `materialize`, `load`, `rerun`, `resume`, ...
``selects``      SQL assets: `sql_asset`, and what ``%%sql_asset`` shares with it
===============  ===========================================================================
"""

from stepwell.kernel_runtime.session.kernel import Session, get_session

__all__ = ["Session", "get_session"]
