"""The execution of a plan.

==================  ==================================================================================
``engine``          acts on the decision about each step: reuses it, runs it, stores its outputs; publishes events
``bookkeeping``     makes the records of a run and has them committed; claims steps that several processes need
``in_process``      the executor: calls a step's body with its context, and captures what the body prints and displays
``result``          the outputs of a step, the result of a run, exceptions of users' code without our frames
``interrupts``      handling of Ctrl-C: it raises in the user's code, and sets a flag in the engine
``live_cells``      asset cells run in the notebook: the changes of a run; ``notebook`` records them for the engine, ``restoration`` restores them
``timeline``        the cells and steps that bound and changed the names of the notebook
``world``           the same for files, the environment, settings and random streams
``addresses``       objects of the notebook and the paths to them; ``contents`` has their contents
==================  ==================================================================================
"""
