"""Agent engines on any jaf-memory provider; each engine has a module of its own, and is imported with it only.

from jaf_memory_bridges.jaf import jaf_provider
"""
