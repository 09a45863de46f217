"""Hold what a server really sends against the catalogue."""
