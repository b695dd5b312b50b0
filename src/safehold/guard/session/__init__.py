"""A guard session: what one exchange was scored on, and which text is cleared."""
