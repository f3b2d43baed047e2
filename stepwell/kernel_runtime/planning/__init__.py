"""The plan of a request, and the decision about each step of the plan.

==============  ===============================================================================
``plan``        the plan as data: steps with their inputs and outputs; the steps of a definition; the order of steps
``build``       selection strings; plans for targets, with the upstream steps that the targets need
``decision``    the decision about a step: reuse it, run it, or hold it back
``states``      the state of every step before anything runs, with reasons; the lineage
==============  ===============================================================================
"""
