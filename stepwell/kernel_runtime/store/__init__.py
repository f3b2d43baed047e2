"""The store: content-addressed values, and a catalog of materializations, runs and code versions.

================  ===================================================================================================
``store``         `open_store`, and `ValueStore`, which combines the other parts
``values/``       the stored form of a value, chosen by its exact type
``objects/``      value files; small values are stored in their catalog row instead
``catalog/``      rows in one DuckDB file, used by one thread per process and by one process at a time
``sql/``          one SELECT over values, files and the catalog
``doctor/``       checks of a store and its surroundings, and the rebuilding of a lost catalog
``signing``       HMAC signatures of streams that execute code when they are loaded, and of the output of steps
``packs``         values and their rows in one file, to share with another person
``trust``         import of values that another person stored
``retention``     rules that decide which materializations are kept
``housekeeping``  deletion of the other materializations, and of files without a row
``folder``        every access to the store's files
``locks``         exclusive locks on files, and an event that is safe against interrupts
``processes``     coordination of live processes: claims of long steps, lists of value files without a row yet
``trouble``       errors of the operating system (disk full, no permission), and a reserve for a full disk
================  ===================================================================================================
"""
