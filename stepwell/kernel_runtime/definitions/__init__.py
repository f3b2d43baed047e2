"""The definitions that the user declares, and their registry.

===================  =====================================================================================
``ops``              ops: functions, cells or SELECTs with typed inputs, outputs and config
``composition``      calls the body of a graph with handles, which stand for later values, and records the nodes and their connections
``graphs``           graphs, which connect ops; jobs, which are graphs that run for their side effects
``assets``           assets, which bind an op or graph to asset keys; source assets, whose stored values are only read
``decorators``       ``asset``, ``multi_asset``, ``graph_asset`` and ``sql_asset``
``declarations``     In, Out, GraphOut, AssetIn, AssetOut, Output, checks of types, options that limit the reuse of results
``bodies``           the code of a step, the source location of the code, and the signature of a function
``registry``         the definitions of this process by key, each with the cell that made it
===================  =====================================================================================
"""
