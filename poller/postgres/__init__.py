"""Fetch the queries of one tick from a read replica.

admission           Decide, with the server's facts at hand, which of the due queries are sent.
batch               One batch: the queries of one tick, sent in one transaction, with an answer for each of
                    them.
cancellation        Interrupt from another thread what waits for a server.
charset             Encodings of databases, and the Python codecs that read them.
circuit_breaker     Hold back queries by their own record: too slow, too often failed, too dear for a busy
                    server.
connection          Hold the one connection to the replica: open it, say where it leads, hang up.
inspect             What a server says of a statement without running it: its columns and the planner's plan.
inspect_relations   Say what the catalogue knows of relations and types: sizes by statistics, indexes, names.
password            Ask a command for the password, as cloud services want it whose tokens live for minutes.
pipeline            Send a burst of statements down one connection and read each one's answer apart.
relay               A relay between a server and libpq that passes on a limited number of bytes at a time.
replay_lag          Tell how far a standby is behind, right on an idle primary and right when the link is cut.
replica             Ask the read replica the questions of one tick, again where its recovery cancelled them.
server_facts        Facts about the server that requirements depend on, and what the role may do beyond
                    reading.
server_tracker      Remember which server answered last, and say in the log when it is another one.
snapshot            Open the transaction that the queries of a tick share, and look at the server that it is
                    on.
sql_text            SQL text that the poller writes itself.
sqlcomment          Name a query in a comment on its SQL, so that the server says which entry of the query
                    files runs.
sqlstate            Say what an SQLSTATE means for a poll: its kind, and what to do about it.
transaction         Word the transactions that queries run in: read-only, bounded, leaving nothing behind.
volatile_functions  Find the volatile functions that a statement may call, which READ ONLY does not always
                    stop.
"""
