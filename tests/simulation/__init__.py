"""Deterministic simulation: our providers, unmodified, on an event loop whose every choice comes from a seed.

Real servers execute; the way to them, time, the order of tasks and the moment of each cancellation are simulated. So
thousands of schedules run in seconds, and one that fails is run again from its token. `python3 dev.py simulate` is
the long form; `docs/reliability.md` says what is tried and what was found.
"""
