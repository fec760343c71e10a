"""Redis 8 and Valkey 8 from the packages of a newer Debian, unpacked into a folder of ours; nothing is installed.

They run with the C library of their own packages, so that an older system can start them. apt fetches them, and checks
their signatures, with a state of its own, which needs no rights. Where that cannot be done, the tests are skipped.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from services import wheels_only

RELEASE = "trixie"
"""The Debian that has Redis 8.0 and Valkey 8.1."""

PROGRAMS = {8: "redis-server", "valkey": "valkey-server"}
"""What a version is called, and the package and program that it is."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

SETTINGS = """
Dir "{folder}";
Dir::State::status "{folder}/status";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::parts "-";
Dir::Etc::preferencesparts "-";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Sandbox::User "";
APT::Get::Assume-Yes "true";
APT::Get::Download-Only "true";
APT::Install-Recommends "false";
"""


def program(version):
    """The program of a version, a script that starts it with its own libraries; fetched once a machine.

    Raises:
        pytest.skip.Exception: it cannot be had, with the reason.
    """
    if wheels_only():
        pytest.skip(f"{PROGRAMS[version]} comes from a package of Debian {RELEASE}, and only wheels are wanted")
    house = Path(tempfile.gettempdir()) / f"jaf-memory-{RELEASE}-{os.getuid()}"
    found = house / PROGRAMS[version]
    if not (found.exists() and found.stat().st_uid == os.getuid()):
        unpacked = _unpacked(house.parent)
        try:
            unpacked.rename(house)
        except OSError:  # another process was faster
            shutil.rmtree(unpacked)
    return str(found)


def _unpacked(place):
    missing = next((tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None), None)
    if missing or not KEYRING.exists():
        pytest.skip(f"Redis 8 and Valkey 8 are packages of Debian {RELEASE}; there is no {missing or KEYRING}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            packages = _fetched(Path(folder))
        except subprocess.SubprocessError as error:
            pytest.skip(f"packages of Debian {RELEASE} could not be fetched: {_last_line(error)}")
        unpacked = Path(tempfile.mkdtemp(dir=place))
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
    for name in PROGRAMS.values():
        _write_start(unpacked, name)
    return unpacked


def _fetched(folder):
    """The packages of both, and of the libraries that they need."""
    (folder / "apt.conf").write_text(SETTINGS.format(folder=folder))
    (folder / "status").touch()  # as if nothing were installed, so that every library comes along
    source = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {RELEASE} main\n"
    (folder / "sources.list").write_text(source)
    for part in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (folder / part).mkdir(parents=True)
    environment = {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "LC_ALL": "C"}
    for words in (("update",), ("install", *PROGRAMS.values())):
        wanted = ["apt-get", "-qq", *words]
        subprocess.run(wanted, check=True, env=environment, capture_output=True, text=True, timeout=300)
    archives = (folder / "var/cache/apt/archives").glob("*.deb")
    return [one for one in archives if one.name.startswith(("lib", "zlib", "redis-", "valkey-"))]


def _last_line(error):
    lines = [line for line in str(error.stderr or "").splitlines() if line.startswith(("E:", "W:"))]
    return lines[-1] if lines else type(error).__name__


def _write_start(unpacked, name):
    """A script beside the packages; it finds them wherever they are moved to."""
    (loader,) = unpacked.glob("usr/lib/*/ld-linux-*.so.*")
    libraries, started = loader.parent.relative_to(unpacked), f'"$here/usr/bin/{name}"'
    loaded = f'"$here/{loader.relative_to(unpacked)}" --library-path "$here/{libraries}" --argv0 {name}'
    script = unpacked / name
    script.write_text(f'#!/bin/sh\nhere=$(dirname "$0")\nexec {loaded} {started} "$@"\n')
    script.chmod(0o700)
