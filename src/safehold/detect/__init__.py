"""Detection: red-teaming, bounty, monitoring, review and intelligence."""
