"""Values by content, and the catalog of what is known about them (DESIGN, section 5).

===============  ====================================================================================================
store            `open_store` and `Store`, which puts the rest together
codecs           the value of record by exact type; `pickling` for everything that has no form of its own, `framing` where a stream holds more
                 than a pickle, `loading` what a load needs beside the stored form
code_copies      classes and functions of the notebook, by name with a copy by value; `code_resolving` loads them
path_results     a path with the contents of its file
numpy_forms      what numpy's own pickle would change
libraries        which versions of libraries wrote a value
describing       the name of a type and a value's size, for a reader
objects          value files
inline_form      the form of a small value in its row
object_header    what a value file begins with; `object_files` writes, opens and maps its bytes
digests          blake3 of each part, beside the writing
arrays           arrays whose bytes pickle would copy into its stream
lacking          which stored values a plan cannot count on
vetting          what a store's directory and catalog must not hold
packing          what is stored as one file for somebody else, in the form of `packs`
trusting         what somebody else stored, looked at and signed anew; `shared_rows` adds it to the catalog
signing          HMAC over what executes code when it is loaded
catalog          the one thread that talks to DuckDB: group commit, questions
once             what a thread waits for, safe against interrupts
instance         the process's warm DuckDB instance
attachment       the catalog file, attached to it: attach, create, check, detach
lease            our own lock around every open of the catalog
claims           who computes a long step just now: a lock on a file per memo key
locking          exclusive locks on whole small files, for the two above
schema           tables, and rows from and to records; `writing` and `reading` use it
remembered       the last snapshot, kept true by our own commits
retention        which versions the rules keep: a function from rows to ids
collecting       ``gc``: rows that rules drop, files that nothing refers to; `unrecorded` protects what is about to be recorded
forgetting       removing a key; `carrying` its rows over to another
housekeeping     what is done once an hour, and the sizes that it finds; `keeping` puts it together
compaction       the catalog written anew, without its free room
sql              one SELECT over given tables, streamed to Arrow, in an instance of its own (`sql_instance`)
statements       what a SELECT reads, by the parser's word; `sql_files` which files it may read
tabular          values as tables; `catalog_views` the catalog as tables
===============  ====================================================================================================
"""
