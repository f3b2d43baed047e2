"""Pictures of a session in the notebook: the lineage, live beside a static one, or as text."""

from stepwell.commands.lineage import lineage_text
from stepwell.widgets.display import forget, show
from stepwell.widgets.picture import static_bundle

__all__ = ["forget", "lineage_text", "show", "static_bundle"]
