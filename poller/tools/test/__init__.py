"""Test queries against fixture rows.

case        Say what a case is: rows to begin with, the query that is asked, and what must come of it.
case_file   Files of test cases: read them and report every mistake at once.
comparison  Hold what came of a query against what its case expects, line by line.
discovery   Find the cases that are meant, beside the query files that they try.
report      Tell how the cases went: a difference for people, a JUnit file for CI.
runner      Run a test case: create its rows, run its query as a poll does, roll everything back.
"""
