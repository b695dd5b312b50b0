"""Controls: a catalogue of safeguards, and whether each of them is alive on this host."""
