"""The running service: build, schedule, poll cycle, reload, health, shutdown.

build              Factories of connections, the exporter, the queue, the lock and the telemetry of a process.
cron_trigger       APScheduler trigger of a schedule, and the runs that it plans.
discovery_poller   Poller of a server that also reads which databases the server has.
elected_pollers    Pollers of a process that polls only while it leads; a follower has no targets.
first_polls        First polls of queries: which ticks still owe them, and when their values are worth an
                   export.
health             Liveness and readiness of a poller, derived from its heartbeat file.
heartbeat          Heartbeat file, rewritten every few seconds for probes, which need no port.
heartbeat_content  Content of the heartbeat: the state of a running daemon and of its queries.
heartbeat_details  Details of the heartbeat with POLLER_TARGETS: the status of every target, encoded only
                   after a change.
kubernetes_api     Requests for one Lease to the API server of Kubernetes, with the configuration of its
                   official client.
kubernetes_lease   Leader lock on a Lease of Kubernetes, with the algorithm of client-go's leader election.
leader_election    Leader election: whether this process polls, by a lock with a lease and its own clock.
metric_source      Exported metrics of one target: its values, and the poller's own metrics about it.
poll_cycle         Poll cycle of one tick: fetch, map, store and observe the results.
reload             Reload of the query files and targets, all or nothing: invalid files change nothing.
run                Daemon process: start-up, schedule, export, reload and ordered shutdown.
scheduler          Scheduler of the ticks of all targets, whose schedules can be replaced at any time.
sd_notify          Service notifications to systemd or any other listener on NOTIFY_SOCKET.
server_databases   Databases of one server: those of its last list, and those that are missing from it.
server_queues      Queues of targets with due ticks, one per server: first in, first out, with cap and
                   quarantine.
shard_targets      Selection of the targets that a shard polls, by their servers.
signals            Signal handlers: SIGHUP requests a reload, SIGTERM and SIGINT stop, a second one exits at
                   once.
target_factory     Factory of the pollers of all targets of one process, and of the parts that they share.
target_poller      Poller of one target: its poll cycle, its ticks and the use of its connection.
target_pollers     Pollers of all targets, replaced one by one when the configuration or a list of databases
                   changes.
target_ticks       Ticks of one target: which are due, which queries their next run contains, and when they
                   ended.
targets_log        Log records about many targets together: their servers and their skipped ticks.
telemetry_export   Export of the spans and log records of one process.
timer              APScheduler timetable of all ticks, which calls a function whenever a tick is due.
watchdog           Watchdog thread that checks the poller's loops every few seconds and reports to its
                   subscribers.
"""
