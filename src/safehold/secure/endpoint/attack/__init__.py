"""Attacks on software control, run safely: each in a root file system of its own."""
