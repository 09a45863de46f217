"""The tests: one file for each module, on a bed of real servers, sockets and processes."""
