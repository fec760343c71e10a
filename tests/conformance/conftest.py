"""Lets the tests beside it, and the processes that they start, import `broken_stores`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
