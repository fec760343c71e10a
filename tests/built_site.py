"""Checks a built site: `python tests/built_site.py site`; the session `docs` runs it.

Every link within the site leads to a file, and to an anchor that is there; and no page or style asks another host for
anything: what a browser loads by itself (scripts, styles, fonts, pictures, frames) has to be the site's own.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"src", "srcset", "poster", "data", "action", "manifest", "background"}
"""Attributes whose addresses a browser asks without a click; of `link` it is `href`, too."""

STYLE = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


class Page(HTMLParser):
    """What a page links to, what it loads, and which anchors it has."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()
        self.feed(text)
        self.loads += STYLE.findall(text)

    def handle_starttag(self, tag, attributes):
        """Take notice of a tag's addresses."""
        for name, value in attributes:
            if name in {"id", "name"}:
                self.anchors.add(value)
            elif name in LOADED or (tag in {"link", "image", "use"} and name.endswith("href")):
                self.loads.append(value or "")
            elif name == "href":
                self.links.append(value or "")


def is_foreign(address):
    """Whether an address is of another host."""
    return address.strip().startswith("//") or urlsplit(address.strip()).scheme in {"http", "https", "ws", "wss"}


def faults(site):
    """Return what is wrong with a site, a line each.

    Args:
        site: the folder.
    """
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    found = [f"{site}: holds no page"] if not pages else []
    for file, page in pages.items():
        name = file.relative_to(site)
        found += [f"{name}: loads {address} from another host" for address in page.loads if is_foreign(address)]
        for address in [*page.links, *page.loads]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                found.append(f"{name}: {address} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{name}: {address} leads to no anchor")
    for file in sorted([*site.rglob("*.css"), *site.rglob("*.svg")]):
        text = file.read_text(encoding="utf-8")
        found += [f"{file.relative_to(site)}: loads {address} from another host" for address in STYLE.findall(text)]
    return found


def main(folder):
    """Say what is wrong with a site; how many faults there are."""
    found = faults(Path(folder).resolve())
    sys.stdout.write("".join(f"{fault}\n" for fault in found))
    return len(found)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1]), 1))
