"""Synthesis: from a constitution to a labelled dataset of exchanges."""
