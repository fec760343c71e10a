"""`python -m jaf_memory_cli` is `jaf-memory`."""

import sys

from jaf_memory_cli import main

sys.exit(main())
