"""Examine the environment that the daemon depends on.

collector    Whether the collector accepts an empty request, and what answers at its port.
finding      Say what a check-up found: one line for each thing looked at, and what to do about it.
queries      Examine every query: whether it may run here, how long it takes and what the planner thinks of
             it.
server       Examine the connection: where it leads, how safe it is, and as whom.
standby      Examine the standby: its role, how far behind it is, and what its recovery does to queries.
unreachable  Say why there is no connection to the database, and what to do about it.
"""
