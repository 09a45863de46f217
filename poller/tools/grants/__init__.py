"""Print the least privileges that a role needs to run queries.

needs      Privileges that a role needs, on relations, schemas, roles and functions.
script     Script for psql with the GRANTs that a role needs.
statement  Resolution of the names in the statements of queries to the privileges that they need.
"""
