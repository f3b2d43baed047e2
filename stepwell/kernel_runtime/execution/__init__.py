"""The execution of a plan.

==================  ==================================================================================
``engine``          carries out the decision about each step: reuses the step, or runs its body and stores the outputs
``bookkeeping``     makes the records of a run and commits them; claims steps that several processes may compute
``in_process``      the executor: calls a step's body, and records what the body prints and displays
``result``          checks the outputs of a step; the result of a run; tracebacks of user code without Stepwell's frames
``interrupts``      Ctrl-C during a run: raises KeyboardInterrupt in code that may be ended at any point; elsewhere, sets a flag
``live_cells``      finds the changes that the body of an asset cell made in the notebook
``notebook``        the engine's interface to asset cells: runs them, stores their changes, and restores the changes on reuse
``restoration``     restores the files, definitions, variables and objects that a reused step had changed
``timeline``        records which cells and steps bound and changed the variables of the notebook
``world``           records which cells and steps changed files, the environment, settings and random streams
``addresses``       finds the objects of the notebook, and the paths that lead to them from its variables
``contents``        describes, compares and replaces the contents of objects
==================  ==================================================================================
"""
