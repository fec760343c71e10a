"""The four stores."""

from services.stores import environ, postgres_server, postgres_settings, redis_server, redis_settings

__all__ = ["environ", "postgres_server", "postgres_settings", "redis_server", "redis_settings"]
