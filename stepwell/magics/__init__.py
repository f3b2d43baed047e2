"""The magics: they turn the text of a cell into definitions, and run commands on the session.

=================  =====================================================================================
``extension``      installs everything in a shell (``%load_ext stepwell``) and removes it
``magics``         the magics, ``%stepwell VERB``, and the settings of ``%config Stepwell``
``flags``          the line of a magic: its flags, parsing and completion
``face``           the state that the magics of one kernel share, and the display of runs: lines, progress, output, figures
``cell_source``    compiles a body: transform, parse, check, split, and compile with the line numbers of the cell
``cell_names``     the names that a body may read from outside; ``cell_changes``: the objects that it may change in place
``cell_inputs``    a cell's key, and its inputs: the names that it reads and that are assets
``asset_cells``    ``%%asset``, ``%%multi_asset``, ``%%op``, ``%%sql_asset``
``graph_cells``    ``%%graph_asset``, ``%%graph``, ``%%job``
``running``        runs an asset's cell: register, materialize, bind the variables, display, print one line
=================  =====================================================================================
"""
