"""The ledger: a durable row for everything a client received."""
