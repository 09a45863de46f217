"""Fetch the queries of one tick from a read replica.

admission           Admission of due queries, by the server's role, replay lag, load and facts.
advisory_lock       Leader lock on PostgreSQL: a session's advisory lock with `idle_session_timeout` as its
                    lease.
batch               Batch: the queries of one tick in one transaction, with an answer for each query.
cancellation        Cancel token that lets another thread or a signal handler interrupt a wait for the server.
charset             Database encodings, and the Python codecs that decode them.
circuit_breaker     Circuit breaker per query: skip queries that are too slow, fail too often or cost too
                    much.
connection          Connection to the replica: connect, host, fitness of the session and close.
conninfo            Connection strings: their server and database, and what is wrong with invalid ones.
database_list       List of the databases of a server, as a query that runs like those of a poll.
inspect             Inspection of statements without running them: result columns and the planner's plan.
inspect_relations   Catalogue facts about relations and types: estimated sizes, indexes and names.
password            Password command, for cloud services whose access tokens expire within minutes.
pipeline            Pipeline of statements on one connection, with a separate reply of bounded size for each.
plan                Planner's plan of a statement: its cost and its sequential scans.
relay               Relay between a server and libpq that passes on a limited number of bytes at a time.
replay_lag          Replay lag of a standby, correct on an idle primary and after a lost link.
replica             Read replica: the queries of one tick, retried after a recovery conflict.
server_facts        Server facts that requirements depend on, and the role's privileges beyond reading.
server_tracker      Tracker of the polled server, which logs a change of server, role or timeline.
snapshot            Opening of the transaction that the queries of a tick share, with the server's facts and
                    lag.
sql_text            SQL text that the poller writes itself.
sqlcomment          SQL comment that names the query, so that the server's views and logs show which one runs.
sqlstate            SQLSTATE classification: the kind of failure, and its fix.
transaction         Transaction statements for queries: read-only, with timeouts, without lasting effects.
volatile_functions  Volatile functions that a statement may call, which READ ONLY does not always prevent.
"""
