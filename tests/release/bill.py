"""A software bill of materials in each wheel, where PEP 770 has its place: CycloneDX of it and what it requires."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement


def bill(name: str, version: str, requires: Sequence[str]) -> bytes:
    """The bill of a distribution: itself, and what it requires without an extra; the same for the same arguments."""
    required = [one for one in map(Requirement, requires) if "extra" not in str(one.marker)]
    own = f"pkg:pypi/{name}@{version}"
    components = [_component(one) for one in sorted(required, key=lambda one: one.name)]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": name,
                "version": version,
                "purl": own,
                "licenses": [{"license": {"id": "MIT"}}],
            }
        },
        "components": components,
        "dependencies": [
            {"ref": own, "dependsOn": [one["bom-ref"] for one in components]},
            *({"ref": one["bom-ref"]} for one in components),
        ],
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _component(required: Requirement) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", required.name).lower()
    # What is required is a range: a version stands only where exactly one is allowed.
    exact = [one.version for one in required.specifier if one.operator == "=="]
    purl = f"pkg:pypi/{name}@{exact[0]}" if exact else f"pkg:pypi/{name}"
    found: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "purl": purl}
    if exact:
        found["version"] = exact[0]
    text = f"{required.specifier}{f'; {required.marker}' if required.marker else ''}"
    found["properties"] = [{"name": "jaf-memory:requirement", "value": text}]
    return found


def add_bill(wheel: Path) -> str:
    """Put its bill into a wheel, with a line in RECORD; the path within the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    texts = {info.filename: content for info, content in entries}
    folder = next(name for name in texts if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
    metadata = message_from_bytes(texts[f"{folder}/METADATA"])
    content = bill(metadata["Name"], metadata["Version"], metadata.get_all("Requires-Dist", []))
    place = f"{folder}/sboms/{metadata['Name']}.cdx.json"
    record = texts[f"{folder}/RECORD"].decode()
    line = f"{place},sha256={digest(content)},{len(content)}\n"
    # RECORD names itself in its last line, without a digest.
    *others, own = record.splitlines(keepends=True)
    texts[f"{folder}/RECORD"] = "".join([*others, line, own]).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for info, _ in entries:
            if info.filename == f"{folder}/RECORD":
                added = zipfile.ZipInfo(place, info.date_time)
                added.compress_type, added.external_attr = info.compress_type, info.external_attr
                archive.writestr(added, content)
            archive.writestr(info, texts[info.filename])
    return place


def wrong_in_record(texts: Mapping[str, bytes]) -> list[str]:
    """What RECORD says and is not so, of a wheel's files by name."""
    (place,) = (name for name in texts if name.endswith(".dist-info/RECORD"))
    told = {name: (sha, size) for name, sha, size in csv.reader(io.StringIO(texts[place].decode()))}
    problems = [f"RECORD does not name {name}" for name in texts.keys() - told.keys()]
    problems += [f"RECORD names {name}, which is not there" for name in told.keys() - texts.keys()]
    for name in texts.keys() & told.keys() - {place}:
        if told[name] != (f"sha256={digest(texts[name])}", str(len(texts[name]))):
            problems.append(f"RECORD is wrong of {name}")
    return problems


def digest(content: bytes) -> str:
    """SHA-256 as RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
