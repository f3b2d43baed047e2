"""The magics: from the text of a cell to definitions, and line magics over the session.

=================  =====================================================================================
``extension``      what ``%load_ext stepwell`` puts into a shell and takes out again
``commands``       the magics with their flags and help, and the settings of ``%config Stepwell``
``face``           what the magics of one kernel share
``cell_source``    a body: transformed, parsed, checked, split, compiled with true line numbers
``cell_names``     the names that a body may read from outside; ``cell_reads`` walks expressions, functions and classes
``cell_changes``   what a body may change in place
``asset_cells``    ``%%asset``, ``%%multi_asset``, ``%%op``, ``%%sql_asset``
``graph_cells``    ``%%graph_asset``, ``%%graph``, ``%%job``
``running``        runs an asset's cell: register, bring up to date, bind, display, one line
``cell_watch``     what plain cells do to the names of the notebook, and which assets they make stale
``displays``       what steps display, and figures
``verbs``          ``%stepwell VERB``
``completion``     flags, asset keys and step keys
=================  =====================================================================================
"""
