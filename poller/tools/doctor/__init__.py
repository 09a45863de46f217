"""Examine the environment that the daemon depends on.

collector  Diagnosis of the collector: result of an empty export, and the protocol at its port.
queries    Diagnosis of every query: requirements, duration and planner cost.
server     Diagnosis of the connection: destination, encryption, role, limits and clock skew.
standby    Diagnosis of the standby: role, replay lag and recovery conflicts with queries.
"""
