"""Scorers: one small file per way of giving text a score."""
