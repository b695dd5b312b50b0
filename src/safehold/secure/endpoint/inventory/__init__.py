"""The signed list of programs on a host: what the digests are called, and who vouches for them."""
