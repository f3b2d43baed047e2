"""The plan of a request, and the decision about each of its steps.

==============  ===============================================================================
``plan``        the plan as data: steps, their inputs and outputs by key; the steps of a definition
``build``       plans of targets, selections and definitions, with every upstream that they need
``decision``    the memo key of a step, and whether it is reused, runs or is held back
``states``      the decisions shown before anything runs: the state of every step, with its reasons; the lineage as data
==============  ===============================================================================
"""
