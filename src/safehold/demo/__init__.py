"""The demo: real exchanges over real HTTP through a gateway, and a table of what happened."""
