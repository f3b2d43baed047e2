"""Data classes that all parts of the runtime exchange. No module here does I/O.

=====================  ===================================================================================
``keys``               names of assets, steps and values; identifiers
``materializations``   results of steps: code versions, reads, effects, stored values, memo keys
``runs``               runs and their steps, the catalog snapshot that a run starts with, events, and the lineage
``maintenance``        retention rules, results of garbage collections, offers of packs
``bulk``               fast creation of thousands of small records
=====================  ===================================================================================
"""
