"""Draws the picture of the command line in the documentation: `python -m benchmarks.picture`.

The commands are run, and what they wrote is drawn. The picture names no font and no host of others.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "command-line.svg"
WIDTH = 84
COMMANDS = (
    ("list", "--preview"),
    ("show", "user-123:order-8812"),
    ("search", "thursday", "--user", "user-123"),
)
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def conversation(name: str, day: str, title: str, *messages: dict[str, Any]) -> dict[str, Any]:
    """A conversation of an owner, as `import` takes it."""
    times = dict.fromkeys(("created_at", "active_at", "updated_at"), f"2026-05-{day}:00Z")
    owner = name.partition(":")[0]
    metadata = {"title": title}
    return {"conversation_id": name, "user_id": owner, **times, "messages": messages, "metadata": metadata}


CALL = {"id": "call-1", "type": "function", "function": {"name": "find_order", "arguments": '{"number": 8812}'}}
STORED = (
    conversation(
        "user-123:order-8812",
        "15T14:02",
        "Order 8812",
        {"role": "user", "content": "Where is my order 8812?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call-1", "name": "find_order", "content": '{"arrives": "Thursday"}'},
        {"role": "assistant", "content": "It should be with you on Thursday."},
    ),
    conversation(
        "user-456:invoice",
        "14T09:30",
        "Invoice",
        {"role": "user", "content": "May I have my invoice again?"},
        {"role": "assistant", "content": "Of course: it is in your inbox."},
    ),
)


def written(folder: Path) -> list[tuple[str, str]]:
    """Each command line, and what it wrote, colours included."""
    (folder / "chats.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in STORED), encoding="utf-8")
    kept = {name: text for name, text in os.environ.items() if not name.startswith("JAF_") and name != "NO_COLOR"}
    store = {"JAF_MEMORY_TYPE": "sqlite", "JAF_SQLITE_PATH": str(folder / "chats.db")}
    shown = {"TZ": "UTC", "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(WIDTH), "PYTHONUTF8": "1"}
    lines = []
    for words in (("import", str(folder / "chats.jsonl")), *COMMANDS):
        command = [sys.executable, "-m", "jaf_memory_cli", *words]
        ran = subprocess.run(command, env={**kept, **store, **shown}, check=True, capture_output=True, text=True)
        typed = " ".join(word if word.isascii() and " " not in word else repr(word) for word in words)
        lines.append((f"$ jaf-memory {typed}", ran.stdout.rstrip()))
    return lines[1:]


def drawn() -> str:
    """The picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with tempfile.TemporaryDirectory() as folder:
        for at, (typed, output) in enumerate(written(Path(folder))):
            console.print(Text("\n" if at else "").append(typed, style="bold"))
            console.print(Text.from_ansi(output))
    picture = console.export_svg(title="jaf-memory", theme=DIMMED_MONOKAI, unique_id="command-line")
    picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    return re.sub(r"font-family: [^;]+;", f"font-family: {FONT};", picture) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
