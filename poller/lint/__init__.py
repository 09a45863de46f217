"""Say what is wrong with query files, to people and to programs."""
