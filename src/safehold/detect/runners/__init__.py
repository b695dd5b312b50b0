"""Runners: worker processes on one host, or Ray actors on many, over a queue in a database."""
