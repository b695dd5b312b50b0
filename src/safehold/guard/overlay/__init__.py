"""Hot rules: a signed file over the bundle in use, followed by every worker, ending by itself."""
