"""From one jailbreak, or one false alarm, to a rule that acts and a bundle that replaces it."""
