"""The magics: from the text of a cell to definitions, and line magics over the session.

=================  =====================================================================================
``extension``      what ``%load_ext stepwell`` puts into a shell and takes out again
``commands``       the magics with their flags and help, and the settings of ``%config Stepwell``
``face``           what the magics of one kernel share
``cell_source``    a body: transformed, parsed, checked, split, compiled with true line numbers
``cell_syntax``    commands, magics and ``%time`` in a body, and what a body cannot hold
``cell_names``     which names a body may read from outside; ``cell_reads`` walks expressions, functions
                   and classes, ``cell_paths`` has what is known at a point
``cell_inputs``    which of these are assets; names and keys as typed on a magic's line
``asset_cells``    ``%%asset``, ``%%multi_asset``; ``sql_cells`` has ``%%sql_asset``
``op_cells``       ``%%op`` and its signature
``graph_cells``    ``%%graph_asset``, ``%%graph``, ``%%job``
``recomposition``  graphs follow the ops that they are made of
``running``        an asset's cell is run: register, bring up to date, bind, display, one line
``progress``       the line that names the work while it lasts
``cell_watch``     what plain cells do to the names of the notebook
``displays``       what steps display, and figures
``tracebacks``     exceptions of users' code without frames of the engine
``status``         ``%stepwell COMMAND``
``lines``          the wording of what runs print
``completion``     flags, asset keys and step keys
=================  =====================================================================================
"""
