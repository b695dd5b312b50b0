"""Account states: what a signed file says about accounts, and what the gateway does about it."""
