"""Removal of personal data from the telemetry of a server.

addresses        Patterns of e-mail and IP addresses, and their removal from texts.
attributes       Scrubber of attributes: removal of client identities and credentials.
database_errors  Patterns of rows and parameters in errors of PostgreSQL and SQLAlchemy, and their removal
                 from texts.
names            Names of attributes, fields and parameters that identify a client or hold a secret.
patterns         Patterns of addresses, user agents, query strings and secrets: their detection and removal.
processors       Tracer and logger providers that scrub every span and log record before any processor.
texts            Preparation of texts for the pattern search: cut, well-formed and without nested encodings.
views            Metric view and filter that remove attributes identifying a client.
"""
