"""The four stores, and a provider with the six documented methods and nothing else."""

import importlib.util
from pathlib import Path

import pytest
from services.stores import environ, postgres_server, postgres_settings, redis_server, redis_settings, shared_environ

__all__ = ["environ", "postgres_server", "postgres_settings", "redis_server", "redis_settings", "shared_environ"]

SAMPLES = Path(__file__).parents[2] / "plugins" / "jaf-memory-cli" / "tests" / "sample_providers.py"


@pytest.fixture
def six(tmp_path):
    """A provider with the six documented methods, over a file."""
    spec = importlib.util.spec_from_file_location("sample_providers", SAMPLES)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SixProvider(module.SixConfig(path=tmp_path / "six.json"))
