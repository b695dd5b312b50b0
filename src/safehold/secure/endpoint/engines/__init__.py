"""Engines: each is made from the one policy, and has a pure model of what it decides."""
