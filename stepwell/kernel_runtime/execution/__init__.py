"""Running a plan.

==================  ==================================================================================
``engine``          decides for each step: reuse, run, skip; keeps the records; publishes events
``bookkeeping``     makes the records of a run and has them committed; claims steps that several processes need
``seeds``           random generators and globals that steps change
``in_process``      the executor: calls a step's body on the main thread, async bodies on a loop thread
``contexts``        what a body sees of its run: ``context.log``, keys, metadata; its values as outputs
``capture``         what a body prints and displays
``live_cells``      asset cells run in the notebook: the changes of a run; ``notebook`` records them for the engine, ``restoration`` restores them
``timeline``        which cell or step bound and changed each name of the notebook; ``world`` the same for files and the like
``addresses``       objects of the notebook and the paths to them; ``contents`` what they hold
``interrupts``      who gets Ctrl-C: the user's code, or a flag of the engine
``result``          the result of a run, and exceptions of users' code without our frames
==================  ==================================================================================
"""
