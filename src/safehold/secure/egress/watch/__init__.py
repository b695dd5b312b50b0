"""The running watch: alerts, response, timeline, learning."""
