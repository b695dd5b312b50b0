"""What the standards in force demand, out of a log: asked by the key service and the gateway."""
