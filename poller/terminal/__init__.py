"""Streams, exit codes and live screens.

console      Console for every table and every coloured line.
diagnostics  Output of diagnostics as text, a table, JSON, SARIF, or workflow commands of GitHub.
exit         Exit codes and final error messages of commands.
live         Live screen that is redrawn until a key is pressed.
progress     Progress line on a terminal: the queries that are still running, and for how long.
sparkline    Sparkline of a series, and the short history of values that it shows.
stdio        Standard streams: closed ones are opened, output is escaped, and write errors are recognised.
"""
