"""Constitutions: what is restricted and what is permitted."""
