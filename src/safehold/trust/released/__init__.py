"""The releases of one channel, read from a log that is followed, with a memory on disk."""
