"""Run schedules by the thousand: `python -m simulation --help`."""

import argparse
import contextlib
import logging
import sys
import time

from simulation import engine, features, stores

SCENARIOS = features.SCENARIOS
REDIS = {"redis": stores.Redis, "cluster": stores.Cluster, "sentinel": stores.Sentinel}
STORES = ("memory", "sqlite", "disk", *REDIS, "postgres")


@contextlib.contextmanager
def opened(name):
    """A store by its name, with the server that it needs."""
    with contextlib.ExitStack() as stack:
        if name in REDIS:
            from services import redis_servers

            store = REDIS[name](stack.enter_context(redis_servers.single()))
        elif name == "postgres":
            from services import postgres_servers

            trusting = ("host all all 127.0.0.1/32 trust", "local all all trust")
            store = stores.Postgres(
                stack.enter_context(postgres_servers.serving(postgres_servers.machine(), {"fsync": "off"}, trusting))
            )
        else:
            store = {"memory": stores.Memory, "sqlite": stores.Sqlite, "disk": stores.Disk}[name]()
        stack.callback(store.close)
        yield store


def say(line):
    """One line, at once: the next may take minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    """See above."""
    parser = argparse.ArgumentParser(prog="python3 dev.py simulate --", description=__doc__)
    parser.add_argument("--store", action="append", choices=STORES)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--schedules", type=int, default=1000, help="of each scenario on each store")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shrink", action="store_true", help="look for the shortest interleaving that shows a fault")
    parser.add_argument("--replay", metavar="TOKEN", help="run one schedule again, of one scenario on one store")
    given = parser.parse_args()
    logging.disable()  # thousands of lost connections are what this is for
    failed = False
    for name in given.store or STORES:
        with opened(name) as store:
            for which in given.scenario or SCENARIOS:
                run = features.run_of(SCENARIOS[which], store)
                if given.replay:
                    engine.replay(run, given.replay)
                    continue
                started = time.monotonic()
                found = engine.explore(run, given.schedules, given.seed, shrink=given.shrink)
                seconds = time.monotonic() - started
                say(f"{name} {which}: {given.schedules} schedules, {store.counts()}, {seconds:.1f} s")
                if found:
                    failed = True
                    say(found.text)
                    say(f"python3 dev.py simulate -- --store {name} --scenario {which} --replay {found.token}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
