"""Say what a query file may hold, key by key, and make the definitions that the poller runs of it.

Only who reads query files imports it: pydantic and PostgreSQL's grammar, which it takes, are no part of the
daemon's own process.
"""
