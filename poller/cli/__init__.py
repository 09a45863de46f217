"""The command line: one module per command.

alerts           Command `alerts`: Prometheus alerting rules for the query files and for the poller itself.
app              Typer application with all commands; each command's module is loaded when it is invoked.
catalog          Command `catalog`: the complete metric catalogue, both the gauges of queries and the events.
check            Command `check`: validation of query files and targets, on request also against a database.
completion       Shell completion: names of queries and targets, packaged folders and values of settings.
conform          Command `conform`: comparison of a server's OTLP output with the metric catalogue.
dashboard        Command `dashboard`: a Grafana dashboard for the query files and for the poller itself.
database         Database session of the commands that connect once; signals close it and end the process.
demo             Command `demo`: a complete setup on 127.0.0.1 with a messaging server, a standby and the
                 daemon.
doctor           Command `doctor`: checks of the database, the role, the queries and the collector, with
                 fixes.
doctor_database  Checks of a target's database for `doctor`, on one connection.
doctor_election  Check of the leader election for `doctor`: whether the lock can work, and which process
                 holds it.
grants           Command `grants`: the least privileges that the query files need, as SQL.
health           Command `health`: liveness and readiness probe, which imports as little as possible.
health_help      Declaration of the command `health` for help and shell completion.
help             Examples in the help of each command, and usage errors in plain English.
import_          Command `import`: conversion of another tool's queries into query files.
loader_child     Entry point of the child process that loads the configuration and answers through a pipe.
main             Entry point of the command line, with fast paths for `poller health` and `poller run`.
new              Command `new`: queries for the usual aggregates of a table.
new_query        Choice of a table and its aggregates for `new`, from options or from questions at the
                 terminal.
options          Decorator that gives a command one option per setting it uses.
poll             Command `poll`: one poll of every query, with the values on stdout.
receive          Command `receive`: an OTLP receiver that prints what it accepts.
run              Command `run`: the part in the child process that loads the daemon's configuration.
schema           Command `schema`: the JSON Schema of query files, or of targets files.
selection        Targets that a command selects: declared ones, and the databases that servers list.
settings         Command `settings`: every effective setting with its source and its meaning.
targets          Targets of one command: the target of `--target NAME`, and work on many servers at the same
                 time.
test             Command `test`: test cases that run queries on the user's own rows.
try_             Command `try`: one run of a statement as in a poll, and a query file for it.
try_statement    Trial run of one statement for `try`, and the query file for it.
watch            Command `watch`: live view of a running poller in the terminal.
watch_view       The screen of `poller watch`.
"""
