"""OpenAI's older Completions, and what has the shape of a prompt alone."""
