"""The catalog: rows in one DuckDB file, shared by any number of processes.

===============  ====================================================================================================
thread           the only thread of a process that uses the catalog; other threads pass it records and questions
lease            a lock that a process holds while it has the catalog open; the seal, which counts acknowledged commits
instance         the warm DuckDB instance of the process; detaching of catalogs before a fork and at exit
attachment       the catalog file while it is attached to the instance: attach, create, check, detach
schema           definitions of the tables, conversion between rows and records, migration
tables           reading and writing rows; the last snapshot, kept up to date with this process's commits
compaction       rewriting the catalog without its free space
===============  ====================================================================================================
"""
