"""The magics: from the text of a cell to definitions, and line magics over the session.

=================  =====================================================================================
``extension``      what ``%load_ext stepwell`` puts into a shell and takes out again
``magics``         the magics, ``%stepwell VERB``, and the settings of ``%config Stepwell``
``flags``          the line of a magic: its flags, how it is read and completed
``face``           what the magics of one kernel share, and what a person sees of a run: lines, displays, figures
``cell_source``    a body: transformed, parsed, checked, split, compiled with true line numbers
``cell_names``     the names that a body may read from outside; ``cell_changes``: what it may change in place
``cell_inputs``    a cell's key, and which of the names that it reads are assets
``asset_cells``    ``%%asset``, ``%%multi_asset``, ``%%op``, ``%%sql_asset``
``graph_cells``    ``%%graph_asset``, ``%%graph``, ``%%job``
``running``        runs an asset's cell: register, bring up to date, bind, display, one line
``cell_watch``     what plain cells do to the names of the notebook, and which assets they make stale
=================  =====================================================================================
"""
