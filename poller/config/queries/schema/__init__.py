"""The schema of query files.

attributes       Names and values of attributes that OTLP and Prometheus can carry.
fields           Base model of all parts of a query file: strict keys and conversion to a definition.
json_schema      JSON Schema of query files, for completion and validation in editors.
metric           Schema of a metric in a query file, and of its alert.
query            Schema of a query in a query file, and of its `requires`.
server_settings  PostgreSQL settings that a query may change for itself, with their values.
"""
