"""A file a store: our provider and the bare driver, side by side, doing the same with the same payload."""
