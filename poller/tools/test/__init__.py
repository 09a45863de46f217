"""Test queries against fixture rows.

case        Schema of a test case: fixture rows, a query, and the expected result.
case_file   Reader of test case files that reports every error at once.
comparison  Comparison of a query's result with the expectations of its test case, line by line.
discovery   Discovery of test cases next to the query files that they test.
report      Reports of test results: text with differences, and JUnit XML for CI.
runner      Test runner: fixture rows, the query as in a real poll, and a rollback of all changes.
"""
