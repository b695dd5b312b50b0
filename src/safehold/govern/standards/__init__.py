"""Standards as documents and files; the rules themselves are in `trust.standing`."""
