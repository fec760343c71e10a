"""A distribution that lacks one of its own modules."""

from acme_half import missing_half  # noqa: F401
