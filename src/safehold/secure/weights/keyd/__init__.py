"""The key service: a process of its own that releases keys only for grants it verified itself."""
