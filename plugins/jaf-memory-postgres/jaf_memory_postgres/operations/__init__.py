"""What is asked of the store: reads, writes, queries, erasure, bulk imports."""
