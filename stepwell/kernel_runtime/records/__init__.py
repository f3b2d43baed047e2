"""Plain frozen data that every part of the runtime exchanges; no behaviour that needs a session."""
