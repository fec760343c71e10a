"""For every test below."""

from __future__ import annotations

pytest_plugins = ["jaf_memory_core.testing.report"]
