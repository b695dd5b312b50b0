"""A whole enclave on one machine, in namespaces: the product runs, and its controls are judged."""
