"""One of two distributions that claim the same name."""

raise RuntimeError("nobody should import this")
