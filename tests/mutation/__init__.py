"""Mutation testing: each shipped backend is changed a little, and the conformance kit has to notice.

`python3 dev.py mutate -- --help` tells how to run it. `operators.py` makes the mutants, `subjects.py` says of which
modules and what tests them, `runs.py` runs the kit on each in a temporary copy, `equivalents.toml` names those that
change nothing.
"""
