"""The catalog: rows in one DuckDB file, shared by any number of processes.

===============  ====================================================================================================
thread           the one thread of a process that uses the catalog; other threads pass it records and questions
lease            a lock between processes around every open of the catalog; the seal, which counts acknowledged commits
instance         the warm DuckDB instance of the process, and how catalogs survive a fork and the end of the process
attachment       the catalog file while it is attached to the instance: attach, create, check, detach
schema           definitions of the tables, conversion between rows and records, migration
tables           reading and writing rows; the last snapshot, kept up to date with this process's commits
compaction       rewriting the catalog without its free space
===============  ====================================================================================================
"""
