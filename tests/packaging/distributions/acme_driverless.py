"""A provider whose driver is not installed."""

import acme_driver  # noqa: F401
