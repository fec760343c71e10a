"""What is asked of a built site: a page that breaks a rule is found. The session `docs` asks it of the real one."""

import pytest
from built_site import faults

GOOD = '<link rel="stylesheet" href="style.css"><h1 id="top">x</h1><a href="b.html#there">b</a><a href="https://a.example">a</a>'


@pytest.fixture
def site(tmp_path):
    """A site of two pages without a fault."""
    (tmp_path / "index.html").write_text(GOOD)
    (tmp_path / "b.html").write_text('<p id="there"></p><a href="index.html">up</a><a href="#there">here</a>')
    (tmp_path / "style.css").write_text("body { background: url(mark.svg) }")
    return tmp_path


def test_a_good_site(site):
    """Links within the site, and a link to another host that a reader may follow, are no faults."""
    assert faults(site) == []


@pytest.mark.parametrize(
    "line",
    [
        '<script src="https://cdn.example/highlight.js"></script>',
        '<script src="//cdn.example/highlight.js"></script>',
        '<link rel="preconnect" href="https://fonts.example">',
        '<img src="https://img.example/badge.svg">',
        '<img srcset="https://img.example/badge.svg 2x" src="style.css">',
        "<style>@import 'https://fonts.example/inter.css';</style>",
        '<p style="background: url(https://img.example/a.png)"></p>',
        '<a href="gone.html">x</a>',
        '<a href="b.html#gone">x</a>',
        '<a href="#gone">x</a>',
        '<img src="gone.png">',
    ],
)
def test_a_fault_of_a_page(site, line):
    """Another host's scripts, styles, fonts and pictures are found, and so are links to nowhere."""
    (site / "index.html").write_text(GOOD + line)
    assert len(faults(site)) == 1


@pytest.mark.parametrize(
    "rule", ["@import '//fonts.example/a.css';", "@font-face { src: url(https://a.example/a.woff2) }"]
)
def test_a_fault_of_a_style(site, rule):
    """A style that asks another host for a font is found."""
    (site / "style.css").write_text(rule)
    assert len(faults(site)) == 1


def test_no_site(tmp_path):
    """A folder without a page is no site without a fault."""
    assert faults(tmp_path)
