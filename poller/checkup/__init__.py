"""Examine what the poller depends on: each file looks at one part and returns findings."""
