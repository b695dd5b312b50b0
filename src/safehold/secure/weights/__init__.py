"""Sealed weights: encrypted at rest, opened only under a grant."""
