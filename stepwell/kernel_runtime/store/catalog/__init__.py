"""The catalog: the records of a store, as rows in one DuckDB file that any number of processes share.

===============  ====================================================================================================
thread           the only thread in a process that uses the catalog; other threads give it records to commit and functions to call
lease            the lock that a process holds while it has the catalog open; the seal, a file with the number of acknowledged commits
instance         the DuckDB instance of the process; detaching of catalogs before a fork and at exit
attachment       creating and checking the catalog file, attaching it to the instance and detaching it
schema           definitions of the tables, conversion between rows and records, migration
tables           reading and writing rows; keeping the last snapshot in memory and updating it with this process's commits
compaction       rewriting the catalog without its free space
===============  ====================================================================================================
"""
