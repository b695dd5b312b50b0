"""Activation probes: from a dataset and a model to a bundle that reads the model as it writes."""
