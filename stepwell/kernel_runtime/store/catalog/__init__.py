"""The catalog: rows in one DuckDB file that any number of processes share.

===============  ====================================================================================================
thread           the one thread of a process that uses the catalog; other threads hand it records and questions
lease            our own lock around every open of the catalog; the seal counts acknowledged commits
instance         the process's warm DuckDB instance, and what happens to catalogs at forks and at the end
attachment       the catalog file, attached to the instance: attach, create, check, detach
schema           definitions of the tables, rows from and to records, migration
tables           rows read and written; the last snapshot, kept up to date by our own commits
compaction       the catalog written again without its free space
===============  ====================================================================================================
"""
