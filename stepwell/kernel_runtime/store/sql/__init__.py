"""One SELECT over stored values, files and the catalog.

===============  ====================================================================================================
select           runs it, streamed to Arrow, with values as tables
instance         a DuckDB instance of its own that can write nothing and knows only what it is given
statements       what a SELECT reads, according to DuckDB's parser, and which files it may read
catalog_views    the catalog as tables
===============  ====================================================================================================
"""
