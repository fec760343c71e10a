"""A plugin that does not survive its import."""

raise RuntimeError("acme: the flux is not compensated")
