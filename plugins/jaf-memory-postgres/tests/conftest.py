"""One server of each kind for all tests; a table of its own keeps each test apart from the others."""

from __future__ import annotations

import itertools
import os

import pytest
from services import postgres_servers as servers

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres():
    """The machine's own PostgreSQL."""
    with servers.serving(servers.machine(), servers.UNSYNCED) as server:
        yield server


@pytest.fixture
def standby(postgres):
    """A streaming standby of the machine's own PostgreSQL: a new one, since other tests kill the primary."""
    with servers.standby_of(postgres) as server:
        yield server


@pytest.fixture(scope="session")
def newest():
    """The newest PostgreSQL that PyPI has."""
    with servers.serving(servers.newest(), servers.UNSYNCED) as server:
        yield server


@pytest.fixture(scope="session")
def bouncer(postgres):
    """PgBouncer in transaction mode before the machine's own PostgreSQL."""
    with servers.bouncing(postgres) as started:
        yield started


@pytest.fixture
def table():
    """The name of a table that no other test uses."""
    return f"t{os.getpid()}_{next(_numbers)}"
