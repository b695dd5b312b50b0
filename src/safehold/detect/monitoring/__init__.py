"""Monitoring: what was served is looked at again, by exchange, by account and across accounts."""
