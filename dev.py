"""Set up what development needs, then run sessions of noxfile.py.

    python3 dev.py                        list the sessions
    python3 dev.py demo                   run one
    python3 dev.py test -- -k append      hand arguments on, here to pytest

Any Python from 3.11 will do, with nothing prepared. All that is installed goes into .nox/, beside this file.
"""
# An old Python has to read this file to its end before it can say that it is too old. Therefore: ASCII,
# no f-strings, no annotations, and no import above the check that it might not have.

import sys

if sys.version_info < (3, 11):
    sys.exit("dev.py needs Python 3.11 or newer; %s is %d.%d" % ((sys.executable,) + sys.version_info[:2]))

import hashlib
import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

NOX = "nox>=2025.11,<2027"
PIP = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"

ROOT = Path(__file__).resolve().parent
HOUSE = ROOT / ".nox" / ("%d.%d" % sys.version_info[:2])  # one an interpreter; the sessions live in it too
ENVIRONMENT = HOUSE / "dev"
PYTHON = str(ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def main(arguments):
    """Make the environment if it is not whole, and become nox."""
    set_up()
    command = [PYTHON, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py")]
    command += ["--session"] + arguments if arguments else ["--list"]
    if os.name == "nt":  # there exec would give the prompt back before nox is done
        sys.exit(subprocess.call(command))
    os.execv(PYTHON, command)


def set_up():
    """Install nox. The mark is written last, so that what was interrupted, copied or moved is made anew."""
    mark = HOUSE / "complete"
    wanted = "\n".join((str(ROOT), sys.base_prefix, NOX))
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return
    sys.stderr.write("dev.py: setting up %s, once\n" % HOUSE.relative_to(ROOT))
    if HOUSE.exists():
        shutil.rmtree(str(HOUSE))
    # Without pip: Debian's venv stops half-way where its ensurepip is not installed.
    run([sys.executable, "-m", "venv", "--without-pip", str(ENVIRONMENT)])
    run(find_pip() + ["install", "--quiet", "--disable-pip-version-check", NOX])
    mark.write_text(wanted, encoding="utf-8")


def find_pip():
    """Return the command of a pip that installs into our environment, wherever one can be had.

    A virtual environment is never "externally managed", so each of the three may write there.
    """
    if succeeds([PYTHON, "-m", "ensurepip"]):
        return [PYTHON, "-m", "pip"]
    systems = [sys.executable, "-m", "pip", "--python", PYTHON]
    if succeeds(systems + ["--version"]):  # fails if there is none, or one older than --python (22.3)
        return systems
    return [PYTHON, str(fetch_pip() / "pip")]  # a wheel is a zip, and Python runs a package inside a zip


def fetch_pip():
    """Download the one wheel of pip that this file names, by its hash."""
    index = "https://pypi.org/simple/pip/"
    files = json.loads(fetch(index, "application/vnd.pypi.simple.v1+json"))["files"]
    address = next(file["url"] for file in files if file["filename"] == PIP)
    content = fetch(urllib.parse.urljoin(index, address))
    if hashlib.sha256(content).hexdigest() != PIP_SHA256:
        sys.exit("dev.py: %s has another hash than this file expects; not used" % address)
    wheel = HOUSE / PIP
    wheel.write_bytes(content)
    return wheel


def fetch(address, kind="*/*"):
    """Return what stands at an address."""
    request = urllib.request.Request(address, headers={"Accept": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()
    except OSError as error:
        sys.exit("dev.py: there is no pip here, and fetching one failed: %s: %s" % (address, error))


def succeeds(command):
    """Tell whether a command ends well; what it says does not matter."""
    return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def run(command):
    """Run a command that has to end well."""
    if subprocess.call(command):
        sys.exit("dev.py: the set-up failed at: %s" % " ".join(command))


if __name__ == "__main__":
    main(sys.argv[1:])
