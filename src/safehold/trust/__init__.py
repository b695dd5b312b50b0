"""Trust: people, keys, grants, exemptions and the transparency log."""
