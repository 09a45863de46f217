"""Try the users' own queries on rows of their making, and hold what comes out against what they expect."""
