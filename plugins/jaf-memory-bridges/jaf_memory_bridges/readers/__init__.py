"""Moving in: what agent frameworks and ChatGPT have stored, read as conversations for `jaf-memory import --from`.

Each module is a reader with an entry point of its own, and imports its framework once it reads. What its bridge of
this distribution reads is what comes of it: a session goes on where it was.
"""
