"""The store: content-addressed values, and a catalog of materializations, runs and code versions.

===============  ====================================================================================================
``store``        `open_store`, and `ValueStore`, which combines the other parts
``values/``      the stored form of a value, chosen by its exact type
``objects/``     value files; small values are stored in their catalog row instead
``catalog/``     rows in one DuckDB file: one thread per process, a lease between processes
``sql/``         one SELECT over values, files and the catalog
``doctor/``      checks of a store and its surroundings, and the rebuilding of a lost catalog
``signing``      HMAC signatures of streams that execute code when they are loaded, and of the output of steps
``packs``        values and their rows in one file; ``trust`` imports values that another person stored
``retention``    rules that say which materializations are kept; ``housekeeping`` deletes the others
``folder``       every access to the store's files; ``locks`` locks them
``processes``    coordination of live processes: claims of long steps, value files without a row yet
``trouble``      errors of the operating system (disk full, no permission), and a reserve for a full disk
===============  ====================================================================================================
"""
