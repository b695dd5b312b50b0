"""Numbered SQL steps, applied in order; each runs once, in SQLite and in PostgreSQL alike."""
