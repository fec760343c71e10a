"""`python -m jaf_memory_core.cli` is `jaf-memory`."""

import sys

from jaf_memory_core.cli import main

sys.exit(main())
