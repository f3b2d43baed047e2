"""One SELECT over stored values, files and the catalog.

===============  ====================================================================================================
select           execution of a SELECT, with values as tables and the result streamed to Arrow
instance         the separate DuckDB instance, which cannot write, and can read only registered tables and listed files
statements       tables, files and parameters of a SELECT according to DuckDB's parser; the files that the SELECT may read
catalog_views    the catalog as tables
===============  ====================================================================================================
"""
