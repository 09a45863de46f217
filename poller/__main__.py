"""Run the command line as `python -m poller`."""

from poller.cli.main import main

main()
