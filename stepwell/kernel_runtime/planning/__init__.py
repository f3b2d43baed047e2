"""What is asked for, what follows from it, and in which state it is.

==============  ===============================================================================
``selection``   a selection string to the asset keys that it means
``plan``        the plan as data: steps, their inputs and outputs by key
``flatten``     a definition to its steps: graphs become one step per op
``build``       targets and definitions to a plan, with every upstream that it needs
``memo``        the memo key of a step once its inputs are known, and what the store has for it
``states``      the state of every step, with its reasons
``picture``     the lineage: definitions and states as cards and edges
==============  ===============================================================================
"""
