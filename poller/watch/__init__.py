"""Show a poller at work in the terminal: every query with its state, values and next run."""
