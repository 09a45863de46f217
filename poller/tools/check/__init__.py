"""Check query files, with and without a database.

cardinality  Say which columns have too many values to tell series apart by.
output       Diagnostics as text, JSON, SARIF, or workflow commands of GitHub.
own_session  Find in a statement what the poller's own session distorts: settings that it sets, and its own
             backend.
rejection    Say why a server refuses a statement, and show the place.
result       Hold what a server said of one query.
rules        Judge every query by what a server says of it: would it run here, feed its metrics, and at what
             cost.
warnings     Warnings that need no database: series that two queries feed, and values that are not what they
             seem.
"""
