"""Writes the Python code of README and documentation into files that type checkers read, one a page.

`python tests/page_code.py FOLDER`; the session `types` runs it. What a page's blocks share, they share here: all of a
page's code stands in one coroutine, because it awaits as in `python -m asyncio`. The user's document is not
among the pages: its code stands as its author wrote it, without types.
"""

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    file
    for pattern in ("*.md", "plugins/*/README.md", "examples/*/README.md", "docs/**/*.md")
    for file in sorted(ROOT.glob(pattern))
]
BLOCK = re.compile(r"(?:^<!-- (from|not run:) ([^\n]+) -->\n\s*)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_of(page):
    """Return the code of a page as a module, or an empty text where there is none."""
    blocks = [
        block
        for mark, _, language, block in BLOCK.findall(page.read_text(encoding="utf-8"))
        if language == "python" and not mark
    ]
    if not blocks:
        return ""
    body = textwrap.indent("\n".join(blocks), "    ")
    return f'"""The code of {page.relative_to(ROOT)}."""\n\n\nasync def page() -> None:\n{body}'


def main(folder):
    """Write a module for each page that has code."""
    for page in PAGES:
        code = code_of(page)
        if code:
            name = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
            (Path(folder) / f"page_{name}.py").write_text(code, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
