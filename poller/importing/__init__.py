"""Bring the queries of other tools along: read their files, write ours, and tell what was lost on the way."""
