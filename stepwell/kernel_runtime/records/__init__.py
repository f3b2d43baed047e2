"""Plain frozen data that every part of the runtime exchanges; no I/O, and no behaviour that needs a session.

=====================  ===================================================================================
``keys``               names of assets, steps and values; identifiers
``materializations``   results of steps: code versions, reads, effects, stored values, memo keys
``runs``               runs and their steps, the snapshot of the catalog that a run starts with, events, and the lineage as data
``maintenance``        rules of what is kept, results of collections, offers of packs
``bulk``               thousands of small records made quickly
=====================  ===================================================================================
"""
