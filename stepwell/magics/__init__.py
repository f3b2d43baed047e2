"""The magics of the notebook: they turn cells into definitions, and run the commands of `stepwell.commands`.

=================  =====================================================================================
``extension``      installs the magics and hooks in a shell (``%load_ext stepwell``) and removes them
``magics``         the magics, ``%stepwell VERB``, and the settings of ``%config Stepwell``
``flags``          the first line of a magic: flags, parsing and completion
``face``           the state that the magics of one kernel share, and the display of runs: lines, progress, output, figures
``cell_source``    compiles the body of a cell: transform, parse, check, split, and compile with the line numbers of the cell
``cell_names``     the names that the body of a cell may read from the notebook
``cell_changes``   the names whose objects the body of a cell may change in place
``cell_inputs``    the asset key that a cell defines, and the assets whose names the cell reads
``asset_cells``    ``%%asset``, ``%%multi_asset``, ``%%op``, ``%%sql_asset``
``graph_cells``    ``%%graph_asset``, ``%%graph``, ``%%job``
``running``        runs an asset cell: registers, materializes, binds the variables, displays, prints one line
=================  =====================================================================================
"""
