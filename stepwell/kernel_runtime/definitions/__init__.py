"""What the user declares, and the registry of it.

===================  =====================================================================================
``ops``              a function or cell with typed inputs, outputs and config
``graphs``           ops wired by composition; ``jobs`` are graphs that are run for their effects
``composition``      what happens when the body of a graph is called: handles instead of values
``assets``           an op or graph bound to asset keys; ``sources`` are assets that are only read
``computed_assets``  the decorators of assets that one function computes; ``graph_assets`` that of graph-backed ones
``declarations``     In, Out, GraphOut, AssetIn, AssetOut, Output
``signatures``       what a function's parameters and annotations say
``types``            checking a value against an annotation
``bodies``           the code of a step that is a notebook cell or one SELECT
``registry``         what is defined in this process, by key, and which cell defined it
``places``           where a definition is, in words
``runner``           the slot through which a definition reaches what can execute it
===================  =====================================================================================
"""
