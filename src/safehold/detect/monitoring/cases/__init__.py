"""Cases of the monitor: what people should look at, with a playbook, and who is told."""
