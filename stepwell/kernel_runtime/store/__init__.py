"""Values by content, and the catalog of what is known about them (DESIGN, section 5).

===============  ====================================================================================================
``store``        `open_store` and `Store`, which puts the rest together
``values/``      a value's stored form, by exact type
``objects/``     where stored forms are: value files, and small ones in their row
``catalog/``     rows in one DuckDB file: one thread a process, a lease between processes
``claims``       who computes a long step just now: a lock on a file per memo key
``signing``      HMAC over what executes code when it is loaded
``sharing/``     packs, and taking over what somebody else stored
``keeping/``     how much is kept: rules, collection, forgetting
``sql/``         one SELECT over values, files and the catalog
``doctor/``      checking a store and its surroundings, and making a lost catalog anew
``locking``      exclusive locks on whole small files
``reserve``      room that is kept for a full disk
``once``         what a thread waits for, safe against interrupts
===============  ====================================================================================================
"""
