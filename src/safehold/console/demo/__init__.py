"""The demo: an enclave, a gateway and a history that is really played."""
