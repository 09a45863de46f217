"""Environment variables and YAML files to Settings and Catalog.

endpoint         Decide where OTLP goes and how: URL, protocol, TLS or plain text.
environment      Find each setting's value in an environment, and remember which variable it stands in.
load_settings    Settings from options, environment variables and defaults; an option wins over a variable.
loader_process   Child process that reads the command line, the settings and the query files for the daemon.
orphans          Reaping of orphans, which the kernel hands to the poller if it is process 1 of a container.
queries          Query files to a Catalog.
settings         Everything the environment decides, read once at start-up.
settings_schema  Say of every setting what it is called in the environment, what it means and what may be
                 written.
"""
