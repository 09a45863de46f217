"""A small messaging server that tells of everything it does, and the clients that keep it busy."""
