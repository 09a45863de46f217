"""What keeps personal data out of the telemetry of a server.

attributes  Scrubber of attributes: removal of client identities and credentials.
identity    Detection of names and texts that identify a client or hold a secret, for `poller conform`.
names       Names of attributes, fields and parameters that identify a client or hold a secret.
patterns    Patterns of addresses, user agents, query strings and secrets, and their removal from texts.
processors  Tracer and logger providers that scrub every span and log record before any processor.
views       Metric view and filter that remove attributes identifying a client.
"""
