"""Facts: what a host and its records show, read once for each run."""
