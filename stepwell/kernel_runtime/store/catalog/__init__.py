"""The catalog: rows in one DuckDB file that any number of processes share.

===============  ====================================================================================================
thread           the one thread of a process that talks to the catalog; `groups` of rows and questions are handed to it
processes        what becomes of it at forks and at the end
lease            our own lock around every open of the catalog
instance         the process's warm DuckDB instance
attachment       the catalog file, attached to it: attach, create, check, detach
seal             how many commits were acknowledged, beside the catalog; `migration` of older formats
vetting          what a store's directory and catalog must not hold
schema           tables, and rows from and to records; `writing` and `reading` use it
remembered       the last snapshot, kept true by our own commits
compaction       the catalog written anew, without its free room
===============  ====================================================================================================
"""
