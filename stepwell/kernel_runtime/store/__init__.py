"""Values by content, and the catalog of what is known about them (DESIGN, section 5).

===============  ====================================================================================================
``store``        `open_store` and `ValueStore`, which puts the rest together
``values/``      the stored form of a value, by exact type
``objects/``     where stored forms are: value files, and small values in their row
``catalog/``     rows in one DuckDB file: one thread per process, a lease between processes
``sql/``         one SELECT over values, files and the catalog
``doctor/``      checks of a store and its surroundings, and the rebuilding of a lost catalog
``signing``      HMAC over streams that execute code when they are loaded; it signs the output of steps, too
``packs``        values and their rows in one file; ``trust`` takes over what another person stored
``retention``    rules of what is kept; ``housekeeping`` deletes what they drop
``folder``       every access to the store's files; ``locks`` on them
``processes``    what living processes say to each other: claims of long steps, files without a row yet
``trouble``      errors of the machine (disk full, no rights), and room for a full disk
===============  ====================================================================================================
"""
