"""Export, import, and copies between providers: in bounded memory, many at once, and safe to run again.

`import_conversations(provider, read_lines(file))` imports, `export(provider)` gives lines, and
`copy(old, new, verify=True)` moves house. The commands of `jaf-memory` stand on these.
"""

from __future__ import annotations

from jaf_memory_core.transfer.copies import compare, copy
from jaf_memory_core.transfer.exports import export, require
from jaf_memory_core.transfer.imports import import_conversations
from jaf_memory_core.transfer.jsonlines import LineError, read_lines, write_line
from jaf_memory_core.transfer.reports import Copied, Imported, Problems

__all__ = [
    "Copied",
    "Imported",
    "LineError",
    "Problems",
    "compare",
    "copy",
    "export",
    "import_conversations",
    "read_lines",
    "require",
    "write_line",
]
