"""Mutation testing: each shipped backend is changed a little, and the conformance kit has to notice.

`python3 dev.py mutate -- --help` tells how to run it. `operators.py` makes the mutants of Python, `texts.py` those of
SQL and Lua; `subjects.py` says of which modules, and which class of the kit has to notice. `reach.py` records once
which lines each check reaches; `runs.py` runs on each mutant the checks that reach it, in a forked child that has
pytest and the kit in it already. `equivalents.toml` names those that change nothing.
"""
