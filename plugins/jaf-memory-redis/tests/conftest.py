"""The servers of the Redis tests: each kind is started once, and each test has a key prefix of its own."""

import uuid

import pytest
from jaf_memory_testing import BRIEF, AppendChecks, BasicChecks, ErasureChecks, slow
from services import redis_servers

AOF = {"appendonly": "yes", "appendfsync": "no"}
"""What is written survives `kill -9`, because the system has it."""


FEW = (BasicChecks, AppendChecks, ErasureChecks)

VERSIONS = [
    pytest.param(7, id="7.0"),
    pytest.param(6, id="6.2", marks=slow("an older server", but=BRIEF)),
    pytest.param(8, id="8.0", marks=slow("a newer server", but=FEW)),
    pytest.param("valkey", id="valkey-8.1", marks=slow("another server", but=FEW)),
]


@pytest.fixture(scope="session", params=VERSIONS)
def server(request):
    """A server of each version."""
    if request.param == 7:
        redis_servers.require_seven()
    with redis_servers.single(AOF, version=request.param) as server:
        yield server


@pytest.fixture(scope="session")
def server7():
    """A server of Redis 7.0."""
    with redis_servers.single(AOF) as server:
        yield server


@pytest.fixture(scope="session")
def group():
    """A master, two replicas, three sentinels."""
    group = redis_servers.Group(AOF)
    try:
        yield group.start()
    finally:
        group.stop()


@pytest.fixture(scope="session")
def calm_group():
    """The same, with sentinels that choose no other master: for tests that kill all three at once.

    Redis promises nothing then: a replica that was killed while it followed a new master may be empty, and be chosen.
    """
    group = redis_servers.Group(AOF, patience=600)
    try:
        yield group.start()
    finally:
        group.stop()


@pytest.fixture(scope="session")
def cluster():
    """A Cluster of six nodes."""
    cluster = redis_servers.Cluster(AOF)
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def calm_cluster():
    """The same, with nodes that take no master's place."""
    cluster = redis_servers.Cluster({**AOF, "cluster-node-timeout": 600_000})
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture
def prefix():
    """A key prefix that no other test has."""
    return f"{uuid.uuid4().hex}:"
