"""The BPF LSM engine: a program in the kernel that goes on refusing when its loader is dead."""
