"""How bytes travel: the address, TLS, one new connection, our pool, and clients that the application hands over."""
