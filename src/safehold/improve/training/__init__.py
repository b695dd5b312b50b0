"""Training: from a dataset to a calibrated bundle."""
