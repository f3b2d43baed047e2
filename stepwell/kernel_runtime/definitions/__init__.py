"""The definitions that the user declares, and their registry.

===================  =====================================================================================
``ops``              a function or cell with typed inputs, outputs and config
``composition``      the call of a graph's body, with handles in place of values
``graphs``           ops connected by composition; jobs, which are graphs that run for their effects
``assets``           an op or graph bound to asset keys; source assets, which are only read
``decorators``       the functions that define assets: from a function, a composition or a SELECT
``declarations``     In, Out, GraphOut, AssetIn, AssetOut, Output, types of values, options that limit reuse
``bodies``           the code of a step, its place in the source, and its signature
``registry``         the definitions of this process by key, and the cells that made them
===================  =====================================================================================
"""
