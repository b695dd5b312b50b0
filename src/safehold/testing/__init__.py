"""Fakes that users may use too."""
