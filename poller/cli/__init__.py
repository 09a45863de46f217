"""The command line: one module per command.

alerts        Write Prometheus alerting rules from the query files.
app           The command line: which commands there are, each loaded only when it is invoked.
catalog       Print the one complete catalogue: gauges of the state and events.
check         Validate the query files, and on a database what they ask for.
completion    Tell a shell how a command line may go on: names of queries, words of a setting.
conform       Hold what a server really sends against the catalogue.
dashboard     Write a Grafana dashboard from the query files.
database      Visit the database by hand: one connection, ended by a signal as a poll is.
demo          Show the whole thing at work, with nothing installed.
doctor        Command `doctor`: examine everything that the poller depends on, and say what to do about it.
grants        Print the privileges that the query files need.
health        Tell whether the poller that runs here is alive, or ready; made for probes, so it loads almost
              nothing.
health_help   Declare `poller health` to the command line, which completes it; poller.cli.health does the
              work.
help          Examples below the help of each command, and errors about a command line that cannot be used.
import_       Bring the queries of another tool along.
load_catalog  Read the query files that the settings name.
loader_child  Entry point of the child process that reads the configuration; its argument is the descriptor to
              answer.
main          Entry point: `poller health`, which probes run all the time, `poller run` with a child, and the
              rest.
new           Command `new`: write queries for the usual aggregates of a table.
options       Give a command one option per setting it uses, made from the settings themselves.
poll          Poll once and print what came of it.
run           Command `run`, as far as the child process goes that reads the configuration of the daemon.
schema        Print what a query file may hold as JSON Schema.
settings      Print every effective setting, its source and its meaning.
test          Try the queries on rows of the users' making; the command is `poller test`, which pytest shall
              not find.
try_          Command `try`: run a statement as a poll would, and write the query for it.
watch         Show a poller live in the terminal.
watch_view    The screen of `poller watch`.
"""
