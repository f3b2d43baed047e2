"""The plan of a request, and the decision about each of its steps.

==============  ===============================================================================
``plan``        the plan as data: steps, their inputs and outputs by key; the steps of a definition
``build``       plans of targets, selections and definitions, with the upstream steps that they need
``decision``    the decision about a step: it is reused, runs or is held back
``states``      the state of every step before anything runs, with its reasons; the lineage
==============  ===============================================================================
"""
