"""Examine the environment that the daemon depends on.

collector    Diagnosis of the collector: result of an empty export, and the protocol at its port.
finding      Finding of one diagnostic check with its advice, and the output of findings as text or JSON.
queries      Diagnosis of every query: requirements, duration and planner cost.
server       Diagnosis of the connection: destination, encryption, role, limits and clock skew.
standby      Diagnosis of the standby: role, replay lag and recovery conflicts with queries.
unreachable  Explanation of a failed database connection, and its fix.
"""
