"""The web console and its pages."""
