"""Data classes that all parts of the runtime exchange. No module here does I/O.

=====================  ===================================================================================
``keys``               keys of assets, steps and stored values; identifiers of runs and materializations
``materializations``   records of the results of steps: code versions, reads, effects, stored values, memo keys
``runs``               runs and their steps, the snapshot of the catalog that a run starts with, events, and the lineage
``maintenance``        retention rules, results of garbage collections, descriptions of values that the user may import
``bulk``               fast creation of thousands of small records
=====================  ===================================================================================
"""
