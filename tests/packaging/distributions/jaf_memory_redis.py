"""Stands for our own plugin, installed without its driver."""

import redis.asyncio  # noqa: F401
