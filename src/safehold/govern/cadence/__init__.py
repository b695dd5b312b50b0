"""Cadence: what falls due, and the clocks that an incident starts."""
