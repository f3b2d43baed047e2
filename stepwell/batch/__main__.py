"""``python -m stepwell.batch``: the command ``stepwell`` if its script is not on the path."""

from stepwell.batch.command_line import main

raise SystemExit(main())
