"""Operating a gateway: administration, canaries, metrics, traces, logs, byte accounting."""
