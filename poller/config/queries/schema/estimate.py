"""Schema of the key `estimate` of a query, and the validation of its statements."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from poller.config.fields import NOT_A_BOOLEAN, Part
from poller.config.queries.schema.parameters import parameter_names
from poller.config.queries.sql_check import statement_problem
from poller.config.queries.sql_parameters import to_placeholders
from poller.model.query import Estimate


def bound(sql: str, info: ValidationInfo) -> str:
    """Return a checked statement with placeholders; the validation's context is the query as written."""
    parameters = parameter_names((info.context or {}).get("parameters"))
    if problem := statement_problem(sql, parameters):
        raise ValueError(problem)
    return to_placeholders(sql, parameters)


class DeclaredEstimate(Part):
    """Cheap replacement for a query that would cost too much."""

    sql: str = Field(
        description="One statement with the same result columns as the query's sql, but far cheaper.",
        examples=[
            "SELECT nullif(reltuples, -1)::bigint AS pending FROM pg_class WHERE oid = 'messages'::regclass"
        ],
        json_schema_extra={"pattern": r"\S"},
    )
    above_cost: Annotated[float, NOT_A_BOOLEAN] = Field(
        description="Planner cost of the query's sql (EXPLAIN's total) above which the estimate runs.",
        examples=[1000000],
        gt=0,
    )

    @field_validator("sql")
    @classmethod
    def _sql(cls, sql: str, info: ValidationInfo) -> str:
        return bound(sql, info)

    def definition(self) -> Estimate:
        return Estimate(**self.parts())
