"""The guard: scorers, the cascade, streaming sessions, bundles, the gateway and the ledger."""
