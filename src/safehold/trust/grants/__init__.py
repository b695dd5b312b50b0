"""Grants: request, approvals, grant, use, end; every step a signed leaf of the log."""
