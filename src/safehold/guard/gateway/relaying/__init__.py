"""One admitted request: relayed, scored, delivered, recorded."""
