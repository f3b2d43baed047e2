"""Everything that the user declares, and the registry of it.

===================  =====================================================================================
``ops``              a function or cell with typed inputs, outputs and config
``graphs``           ops wired by composition; ``jobs`` are graphs that run for their effects
``composition``      the call of a graph's body: handles instead of values
``assets``           an op or graph bound to asset keys; source assets are only read
``decorators``       the decorators of assets
``declarations``     In, Out, GraphOut, AssetIn, AssetOut, Output, the types of values, and options that limit reuse
``signatures``       what a function's parameters and annotations declare, and where it is defined
``bodies``           the code of a step that is a notebook cell or one SELECT
``registry``         what is defined in this process, by key, and which cell defined it
===================  =====================================================================================
"""
