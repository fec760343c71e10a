"""Backends that come with the core."""
