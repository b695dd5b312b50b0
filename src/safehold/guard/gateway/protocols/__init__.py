"""Wire protocols: what a client sends is read, what it gets is written."""
