"""The transparency log: append-only, provable offline with public keys alone."""
