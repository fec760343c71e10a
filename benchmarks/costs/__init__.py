"""What else is to be known: messages and the start of a program; bytes that a server writes or holds."""
