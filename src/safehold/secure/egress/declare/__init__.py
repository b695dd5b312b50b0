"""What may leave at all: the register of flows and the plan."""
