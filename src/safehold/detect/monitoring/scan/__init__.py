"""Re-scan: every exchange that was served is judged once more, slower and with more recall."""
