"""Draw on a terminal what changes while one looks at it."""
