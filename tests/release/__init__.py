"""Make what is published: refuse, build, check, try; `python3 dev.py release` runs it."""
