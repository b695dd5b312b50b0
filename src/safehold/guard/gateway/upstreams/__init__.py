"""Models behind the gateway: an HTTP server, an embedded model, a Hugging Face model."""
