"""Frozen data that all parts of the runtime exchange, without I/O.

=====================  ===================================================================================
``keys``               names of assets, steps and values; identifiers
``materializations``   results of steps: code versions, reads, effects, stored values, memo keys
``runs``               runs and their steps, the snapshot of the catalog that a run starts with, events, and the lineage as data
``maintenance``        retention rules, results of garbage collections, offers of packs
``bulk``               fast creation of thousands of small records
=====================  ===================================================================================
"""
