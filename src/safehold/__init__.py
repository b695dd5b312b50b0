"""Safehold: ASL-3-style safeguards around a served language model."""

__version__ = "0.1.0"
