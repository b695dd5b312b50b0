"""What explains the bytes that left: replies, senders, overhead, tokens."""
