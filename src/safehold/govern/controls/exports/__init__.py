"""Exports: the documents that judges read, written from what the parts have on this host."""
