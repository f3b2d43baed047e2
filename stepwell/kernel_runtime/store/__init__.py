"""The store: content-addressed values, and a catalog of materializations, runs and code versions.

================  ===================================================================================================
``store``         `open_store`, and `ValueStore`, which combines the other parts
``values/``       the stored form of a value, chosen by its exact type
``objects/``      value files; a small value is stored in its catalog row instead
``catalog/``      rows in one DuckDB file, used by one thread per process and by one process at a time
``sql/``          one SELECT over values, files and the catalog
``doctor/``       checks of a store and its surroundings, and the rebuilding of a lost catalog
``signing``       HMAC signatures of streams that execute code when they are loaded, and of the output of steps
``packs``         values and their rows in one file, to share with another person
``trust``         import of values that another person stored, after the user has confirmed it
``retention``     rules that decide which materializations are kept
``housekeeping``  deletion of materializations that no rule keeps, and of files to which no catalog row refers
``folder``        every access to the store's files
``locks``         exclusive locks on files, and an event that is safe against interrupts
``processes``     coordination of live processes: claims of long steps, and lists of value files whose rows are not committed yet
``trouble``       errors of the operating system (disk full, no permission), and a file that reserves disk space for gc
================  ===================================================================================================
"""
