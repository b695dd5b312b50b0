"""The kernel: nftables, shaping, namespaces, attribution."""
