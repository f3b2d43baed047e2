"""Running a plan.

==================  ==================================================================================
``engine``          decides for each step: reuse, run, skip; keeps the records; publishes events
``claiming``        who computes a step that several processes need, and who waits
``bookkeeping``     makes the records of a run and has them committed
``hidden_state``    globals that steps change; ``seeds`` of chance
``in_process``      the executor: calls a step's body on the main thread, async bodies on a loop thread
``outputs``         what a body returned or yielded to the outputs that it declared
``contexts``        what a body sees of its run: ``context.log``, keys, metadata
``capture``         what a body prints and displays
``live_cells``      asset cells run in the notebook: what a run left there; ``notebook`` records it for the engine, ``restoration`` puts it back
``timeline``        who bound and changed each name of the notebook
``addresses``       objects of the notebook and the ways to them; ``contents`` what they hold, ``views`` arrays over one memory
``file_effects``    files that steps wrote
``figures``         figures among a step's values, taken from pyplot before they are stored
``interrupts``      who gets Ctrl-C: the user's code, or a flag of the engine
``failures``        exceptions of users' code, without our frames
``result``          what a run gives back
==================  ==================================================================================
"""
