"""What may take effect: released artefacts, and whether a change weakens a safeguard."""
