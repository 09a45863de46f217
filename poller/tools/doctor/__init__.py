"""Examine the environment that the daemon depends on.

collector  Diagnosis of the collector: result of an empty export, and the protocol at its port.
discovery  Diagnosis of the list of databases of a server: which become targets, and which do not.
queries    Diagnosis of every query: requirements, duration and planner cost.
schedule   Diagnosis of the schedule: whether the polls of all targets fit into the connections of their
           servers.
server     Diagnosis of the connection: destination, encryption, role, limits and clock skew.
standby    Diagnosis of the standby: role, replay lag and recovery conflicts with queries.
"""
