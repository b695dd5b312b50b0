"""The bundle in use: loading, holding and swapping the active guard."""
