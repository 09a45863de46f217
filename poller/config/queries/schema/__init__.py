"""The schema of query files.

fields       Say what every part of a query file has in common: strict keys, and the definition it becomes.
json_schema  Describe query files in JSON Schema, so that editors know every key.
metric       Schema of a metric in a query file, and of its alert.
query        Schema of a query in a query file, and of its `requires`.
"""
