"""The picture of the command line shows what the command line writes."""

import html
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last: packages that are installed are those under test

pytestmark = pytest.mark.skipif(
    os.environ.get("JAF_TEST_INSTALLED") == "wheels", reason="the program that draws is in no wheel"
)

from benchmarks import picture

WORDS = re.compile(r"<text[^>]*>([^<]*)</text>")


def said(drawing):
    """The text of a picture; another release of rich may draw it otherwise."""
    return " ".join(html.unescape(" ".join(WORDS.findall(drawing))).split())


def test_the_picture_is_current():
    """The commands write what the picture says that they write; `python -m benchmarks.picture` draws it anew."""
    assert said(picture.PICTURE.read_text(encoding="utf-8")) == said(picture.drawn())


def test_the_picture_asks_nobody():
    """Whoever looks at the picture sends no request: neither fonts nor pictures of other hosts are in it."""
    drawing = picture.PICTURE.read_text(encoding="utf-8")
    assert re.findall(r"url\((?!#)|<image|<script|href|@import|@font-face", drawing) == []
