"""What conversation memory costs, beside the bare drivers and beside other libraries: `python3 dev.py bench`.

One program that starts its servers itself. Read `comparisons.py` for what is measured, `measurement.py` for how, a file
of `backends/` for what a bare driver does in place of ours, one of `peers/` for another library, `targets.py` for what
we want to reach, and `program.py` for the order in which the parent lets its workers run.

Four programs are run by their own names: `sessions.py` measures loads and records beside the provider's own methods,
`postgres_searches.py` searches and statistics alone, `redis_faults.py` and `postgres_faults.py` measure no time.
"""
