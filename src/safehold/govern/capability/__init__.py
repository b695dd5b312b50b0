"""Capability runs: staged stand-in tasks put to a model without its guard, and what they show."""
