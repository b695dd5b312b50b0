"""Intelligence: descriptors of attacks go out, never content; what others say comes in on trial."""
