"""The running service: build, schedule, poll cycle, reload, health, shutdown.

build              Factories for the connection, the exporter, the queue and the telemetry of one process.
health             Liveness and readiness of a poller, derived from its heartbeat file.
heartbeat          Heartbeat file, rewritten every few seconds for probes, which need no port.
heartbeat_content  Content of the heartbeat: the state of a running daemon and of its queries.
poll_cycle         Poll cycle of one tick: fetch, map, store and observe the results.
reload             Reload of the query files, all or nothing: invalid files leave the running queries in use.
run                Daemon process: start-up, schedule, export, reload and ordered shutdown.
scheduler          Scheduler of the ticks, with one worker and a schedule that can be replaced between two
                   runs.
sd_notify          Service notifications to systemd or any other listener on NOTIFY_SOCKET.
signals            Signal handlers: SIGHUP requests a reload, SIGTERM and SIGINT stop, a second one exits at
                   once.
timer              APScheduler timetable of all ticks, with one worker thread.
watchdog           Watchdog thread that checks the poller's loops every few seconds and reports to its
                   subscribers.
"""
