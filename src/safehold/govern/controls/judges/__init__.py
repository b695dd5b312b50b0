"""Judges: for each automatic control, the faults that its facts show."""
