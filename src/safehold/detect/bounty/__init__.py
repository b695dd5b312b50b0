"""The bug bounty: sealed submissions, replay, scores, severity, payment and disclosure."""
