"""Bundles: a guard on disk, every byte of it accounted for."""
