"""People who judge: cases, blind verdicts, decisions, and how far reviewers agree."""
