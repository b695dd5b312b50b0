"""Improvement: synthesis, training and rapid response."""
