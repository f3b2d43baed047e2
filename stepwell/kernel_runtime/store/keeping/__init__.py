"""How much is kept.

===============  ====================================================================================================
retention        which versions the rules keep: a function from rows to ids
collecting       ``gc``: rows that rules drop, files that nothing refers to
forgetting       removing a key
carrying         its rows under another key
housekeeping     rules and sizes in the catalog and beside it; `hourly` what is done once an hour
===============  ====================================================================================================
"""
