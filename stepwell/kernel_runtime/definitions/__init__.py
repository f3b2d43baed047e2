"""Everything that the user declares, and the registry of it.

===================  =====================================================================================
``ops``              a function or cell with typed inputs, outputs and config
``composition``      the call of a graph's body: handles instead of values
``graphs``           ops wired by composition; jobs, which are graphs that run for their effects
``assets``           an op or graph bound to asset keys; source assets are only read
``decorators``       how assets are made: of a function, of a composition, of one SELECT
``declarations``     In, Out, GraphOut, AssetIn, AssetOut, Output, the types of values, and options that limit reuse
``bodies``           the code of a step, where it was written, and what its parameters declare
``registry``         what is defined in this process, by key, and which cell defined it
===================  =====================================================================================
"""
