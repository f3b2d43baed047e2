"""The definitions that the user declares, and their registry.

===================  =====================================================================================
``ops``              a function or cell with typed inputs, outputs and config
``composition``      the call of a graph's body, with handles in place of values
``graphs``           ops connected by composition; jobs, which are graphs that run for their effects
``assets``           assets, which bind an op or graph to asset keys; source assets, which are only read
``decorators``       ``asset``, ``multi_asset``, ``graph_asset`` and ``sql_asset``
``declarations``     In, Out, GraphOut, AssetIn, AssetOut, Output, types of values, options that limit reuse
``bodies``           the code of a step, its location in the source, and its signature
``registry``         the definitions of this process by key, and the cells that made them
===================  =====================================================================================
"""
