"""The execution of a plan.

==================  ==================================================================================
``engine``          acts on the decision about each step: reuses it, runs it, stores its outputs; publishes events
``bookkeeping``     makes the records of a run and commits them; claims steps that several processes may compute
``in_process``      the executor: calls a step's body with its context, and captures what the body prints and displays
``result``          the outputs of a step, the result of a run, tracebacks of user code without Stepwell's frames
``interrupts``      handling of Ctrl-C: it raises KeyboardInterrupt in user code, and sets a flag in the engine
``live_cells``      the changes that an asset cell makes in the notebook
``notebook``        the engine's interface to these changes: it records them and restores them
``restoration``     restores the files, definitions, variables and objects that a reused step changed
``timeline``        the cells and steps that bound and changed the names of the notebook
``world``           the cells and steps that changed files, the environment, settings and random streams
``addresses``       the objects of the notebook and the paths to them
``contents``        the contents of these objects
==================  ==================================================================================
"""
