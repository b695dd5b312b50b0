"""The read meter: counts what is read of sealed files, and refuses beyond a grant's budget."""
