"""One SELECT over stored values, files and the catalog.

===============  ====================================================================================================
select           runs it, streamed to Arrow
instance         in a DuckDB instance of its own that can write nothing and knows only what it is given
statements       what a SELECT reads, by the parser's word; `files` which files it may read
tabular          values as tables; `catalog_views` the catalog as tables
===============  ====================================================================================================
"""
