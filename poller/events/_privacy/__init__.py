"""What keeps personal data out of the telemetry of a server.

attributes  Keep who a client is, and what opens their account, out of every attribute.
identity    Names and texts that identify a client or hold a secret: what `poller conform` looks for.
names       Names of attributes, fields and parameters that identify a client or hold a secret.
patterns    Recognise addresses, user agents, queries and secrets in a text by their shapes, and remove them.
processors  Scrub the SDK's spans and log records before any processor sees them, whoever made them.
views       Leave out of metrics what would tell clients apart, whoever recorded it.
"""
