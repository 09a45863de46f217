"""The number of targets that wait for a connection, and how long the first of them has waited."""

from __future__ import annotations

from poller.daemon.server_queues import QueueConfig, ServerQueues, Waiting


def test_targets_wait_while_another_has_the_connection_of_their_server() -> None:
    queues = ServerQueues(QueueConfig(workers=8))
    for target, at in (("a", 0.0), ("b", 1.0), ("c", 2.0)):
        queues.offer(target, "server", 1, at)
    assert queues.take(2.0) == "a"

    assert queues.all_waiting(5.0) == Waiting(2, 4.0)


def test_the_delay_is_that_of_the_first_target_on_any_server() -> None:
    queues = ServerQueues(QueueConfig(workers=1))
    queues.offer("a", "server 1", 1, 0.0)
    queues.offer("b", "server 2", 1, 3.0)
    queues.offer("c", "server 1", 1, 1.0)
    assert queues.take(3.0) == "a"

    assert queues.all_waiting(10.0) == Waiting(2, 9.0)


def test_nothing_waits_after_every_target_had_its_turn() -> None:
    queues = ServerQueues(QueueConfig(workers=8))
    queues.offer("a", "server", 1, 0.0)
    assert queues.take(1.0) == "a"
    queues.finish("a", "reached", 2.0)

    assert queues.all_waiting(9.0) == Waiting(0, 0.0)


def test_targets_of_an_unavailable_server_do_not_count() -> None:
    queues = ServerQueues(QueueConfig(workers=8))
    queues.offer("a", "server", 1, 0.0)
    queues.offer("b", "server", 1, 0.0)
    assert queues.take(1.0) == "a"
    queues.finish("a", "unavailable", 2.0)

    assert queues.waiting("server") == ["b", "a"]
    assert queues.all_waiting(9.0) == Waiting(0, 0.0)


def test_a_removed_target_waits_no_longer() -> None:
    queues = ServerQueues(QueueConfig(workers=8))
    queues.offer("a", "server", 1, 0.0)
    queues.offer("b", "server", 1, 4.0)
    queues.remove("a")

    assert queues.all_waiting(5.0) == Waiting(1, 1.0)
