"""The gateway: wire protocols, surfaces, upstreams and the server."""
