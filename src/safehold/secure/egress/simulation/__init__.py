"""Thefts simulated on example hosts and recorded traffic."""
