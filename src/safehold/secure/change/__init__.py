"""Change management on disk: the configuration's history, provenance, drift and the TUF export."""
