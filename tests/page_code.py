"""Writes the Python code of README and documentation into files that type checkers read, one a page.

`python tests/page_code.py FOLDER`; the session `types` runs it. What a page's blocks share, they share here: all of a
page's code stands in one coroutine, because it awaits as in `python -m asyncio`. What a page calls a file is written
under its own name, so that files of one page import each other. The user's document is not
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
BLOCK = re.compile(
    r"(?:^<!-- (from|file|part|server|commands|with|not run:) ([^\n]+) -->\n\s*)?^```(\w*)\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


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


def files_of(page):
    """The files that a page has its reader write, and their text."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return {name: block for mark, name, _, block in blocks if mark == "file"}


def main(folder):
    """Write a module for each page that has code, and the modules that pages call files."""
    programs = [file for page in PAGES for file in files_of(page).items() if file[0].endswith(".py")]
    if len(dict(programs)) < len(programs):
        raise ValueError(f"two pages call a file by one name: {sorted(name for name, _ in programs)}")
    for name, text in programs:
        (Path(folder) / name).write_text(text, encoding="utf-8")
    for page in PAGES:
        code = code_of(page)
        if code:
            name = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
            (Path(folder) / f"page_{name}.py").write_text(code, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
