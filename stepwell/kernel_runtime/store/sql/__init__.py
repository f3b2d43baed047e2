"""SQL: the execution of one SELECT over values of assets, files and the catalog.

===============  ====================================================================================================
select           conversion of values to tables, and execution of a SELECT over these tables
instance         the DuckDB instance that runs SELECTs: it can read only registered tables and listed files, and cannot write
statements       parsing of a SELECT: its tables, files and parameters; which files a SELECT may read
catalog_views    the tables of the schema ``stepwell``, such as ``stepwell.runs``, which show the catalog
===============  ====================================================================================================
"""
