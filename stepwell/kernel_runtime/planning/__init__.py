"""What is asked for, what follows from it, and in which state it is.

==============  ===============================================================================
``plan``        the plan as data: steps, their inputs and outputs by key; the steps of a definition
``build``       targets, selections and definitions to a plan, with every upstream that it needs
``memo``        the memo key of a step once its inputs are known, and what the store has for it
``states``      the state of every step, with its reasons
``picture``     the lineage: definitions and states as cards and edges
==============  ===============================================================================
"""
