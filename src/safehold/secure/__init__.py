"""Security: nobody walks off with the weights."""
