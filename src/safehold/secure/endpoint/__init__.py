"""Endpoint software control: only what was allowed runs where the weights are."""
