"""What is asked of the store: reads, writes, queries and erasure."""
