"""Permission events of the kernel: ask us before a program runs, a file opens, bytes are read."""
