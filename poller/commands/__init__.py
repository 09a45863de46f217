"""One module per command, imported only when that command is invoked; each has a function of its own name."""
