"""The magics: from the text of a cell to definitions, and line magics over the session.

=================  =====================================================================================
``extension``      what ``%load_ext stepwell`` puts into a shell and takes out again
``commands``       the magics with their flags and help, and the settings of ``%config Stepwell``
``face``           what the magics of one kernel share
``cell_source``    a body: transformed, parsed, checked, split, compiled with true line numbers
``cell_names``     the names that a body may read from outside; ``cell_reads`` walks expressions, functions and classes
``cell_changes``   what a body may change in place
``cell_inputs``    which names are assets; names and keys as typed on a magic's line
``asset_cells``    ``%%asset``, ``%%multi_asset``; ``sql_cells`` has ``%%sql_asset``
``op_cells``       ``%%op`` and its signature
``graph_cells``    ``%%graph_asset``, ``%%graph``, ``%%job``
``running``        runs an asset's cell: register, bring up to date, bind, display, one line
``progress``       the line that names the work while it lasts
``cell_watch``     what plain cells do to the names of the notebook, and which assets they make stale
``displays``       what steps display, and figures
``status``         ``%stepwell COMMAND``
``lines``          the wording of the lines of a run
``completion``     flags, asset keys and step keys
=================  =====================================================================================
"""
