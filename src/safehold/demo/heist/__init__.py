"""A heist on a miniature enclave: network namespaces, a scripted thief, controls on and off."""
