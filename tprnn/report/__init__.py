"""Tables and figures from recorded runs. Nothing here trains."""
