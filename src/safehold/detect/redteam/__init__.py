"""Red-teaming: our own attacks, and a target that always complies, to measure a guard."""
