"""Egress: every byte that leaves is declared, counted and bounded."""
