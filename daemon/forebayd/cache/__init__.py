"""Policy: what is filled, kept, looked up again and evicted. Knows no files and no networks."""
