"""Error messages for query and targets files, made from pydantic's validation errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from poller.config.fields import Duration, MisfitError, ProblemsError
from poller.model.duration import format_duration
from poller.model.text import as_yaml, did_you_mean, kind_of, near, quote

Path = tuple[str | int, ...]


def sentences(error: ValidationError, model: type[BaseModel], data: Any) -> list[tuple[Path, str]]:
    """Return every problem as the path of its key in `data`, and a message with the fix.

    `data` is the content of the file, without defaults.
    """
    messages: dict[tuple[Path, str], set[Path]] = {}
    """Path and text of each problem, with the missing keys that would solve it."""
    misspelt: set[Path] = set()
    generic: set[Path] = set()
    for details in error.errors(include_url=False):
        path, raised = details["loc"], details.get("ctx", {}).get("error")
        if details["type"] == "extra_forbidden":
            keys = list(_fields(_model_at(model, path[:-1])))
            if suggestion := near(str(path[-1]), keys):
                misspelt.add((*path[:-1], suggestion))
            messages[path, unknown_key(str(path[-1]), keys)] = set()
        elif details["type"] == "missing":
            messages[path, f"is missing{_spot(model, path).example}"] = {path}
        elif details["type"] == "too_short" and _at(data, path):
            continue  # pydantic counts only valid items, but each invalid one has its own error
        elif raised is not None:
            for problem in raised.problems if isinstance(raised, ProblemsError) else [raised]:
                place, absent = _located(problem, path, data)
                messages.setdefault((place, str(problem)), absent)
        elif (path := _within(data, path)) not in generic:  # each member of a union has an error
            generic.add(path)
            value, spot = _at(data, path), _spot(model, path)
            messages[path, _sentence(dict(details), spot, value)] = set()
            if details["type"] == "tuple_type" and isinstance(value, dict):
                for inner, text in _problems_inside(_bare(get_args(spot.annotation)[0]), value):
                    messages[(*path, *inner), text] = set()
    # `unti: By` is one mistake, not an unknown key and a missing one.
    return [problem for problem, absent in messages.items() if not absent & misspelt]


def _located(problem: ValueError, path: Path, data: Any) -> tuple[Path, set[Path]]:
    """Return the path of the key that a problem is about, and the keys of which one is missing.

    `path` is where the problem was raised: perhaps for the default of a missing key.
    """
    keys = problem.keys if isinstance(problem, MisfitError) else ()
    of_part = [(*path[:-1], key) for key in keys] or [path]
    present = next((key for key in of_part if _within(data, key) == key), None)
    if present is not None:
        return present, set()
    return of_part[0] if keys else _within(data, path), set(of_part)


def _problems_inside(model: Any, data: Any) -> list[tuple[Path, str]]:
    """Return the problems of a part that is written instead of a list of them."""
    try:
        if _is_model(model):
            model.model_validate(data)
    except ValidationError as error:
        return sentences(error, model, data)
    return []


def unknown_key(key: str, keys: Sequence[str]) -> str:
    """Return the message for an unknown key; `keys` are the known ones."""
    return f"unknown key {quote(key)}{did_you_mean(key, keys) or ';'} known keys: {', '.join(keys)}"


def _sentence(details: dict[str, Any], spot: _Spot, value: Any) -> str:
    match details["type"]:
        case "greater_than_equal":
            return _out_of_bounds(spot, value, too_small=True)
        case "less_than_equal":
            return _out_of_bounds(spot, value, too_small=False)
        case "too_long" | "string_too_long":
            unit = "entries" if details["type"] == "too_long" else "characters"
            most = details["ctx"]["max_length"]
            return f"has {len(value):,} {unit}; write at most {most:,}"
        case "greater_than":
            return f"{quote(value)} is not above {details['ctx']['gt']:g}{spot.example}"
        case "literal_error" if isinstance(value, str) and value:
            return f"{quote(value)} is not one of {_listed(spot.annotation)}{spot.example}"
        case kind if kind.startswith("int_") and isinstance(value, str | float) and value != "":
            return f"{quote(value)} is not a whole number{spot.example}"
    if value is None or value in ("", [], {}):
        return f"is empty{spot.example}"
    if isinstance(value, dict) and all(inner is None for inner in value.values()):
        return f"is a mapping, because braces without quotes mean one{spot.example}"
    return f"is {kind_of(value)}, not {_expected(spot.annotation)}{spot.example}"


def _out_of_bounds(spot: _Spot, value: Any, *, too_small: bool) -> str:
    members = get_args(spot.field.annotation) if spot.field else ()
    of_members = (bound for member in members for bound in getattr(member, "__metadata__", ()))
    bounds = [*(spot.field.metadata if spot.field else []), *of_members]
    least = next(bound.ge for bound in bounds if isinstance(bound, Ge))
    most = next((bound.le for bound in bounds if isinstance(bound, Le)), None)
    time = any(marker in bounds for marker in get_args(Duration)[1:])

    def formatted(number: Any) -> str:
        if time and isinstance(number, int | float):
            return format_duration(number)
        return number.strip()[:40] if isinstance(number, str) else quote(number)

    size = ("shorter" if too_small else "longer") if time else ("less" if too_small else "more")
    allowed = f"at least {formatted(least)}" if most is None else f"{formatted(least)} to {formatted(most)}"
    return f"{formatted(value)} is {size} than {formatted(least if too_small else most)}; write {allowed}"


class _Spot(NamedTuple):
    """Declaration of one path in the model."""

    field: FieldInfo | None
    annotation: Any
    example: str
    """`; write for example ...`, ready to append."""


def _spot(model: type[BaseModel], path: Path) -> _Spot:
    spot = _Spot(None, model, "")
    for step in path:
        inner = spot.annotation
        if _is_model(inner):
            field = _fields(inner)[str(step)]
            example = f"; write for example `{step}: {as_yaml(field.examples[0])}`" if field.examples else ""
            spot = _Spot(field, _bare(field.annotation), example)
        elif get_origin(inner) is tuple:
            spot = spot._replace(annotation=_bare(get_args(inner)[0]))
        else:
            spot = spot._replace(annotation=_bare(get_args(inner)[1]))
    return spot


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a model by key; `for` cannot be the name of a Python attribute."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _bare(annotation: Any) -> Any:
    """Remove None from a union, and metadata."""
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        annotation = members[0] if len(members) == 1 else annotation
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    annotation = _spot(model, path).annotation
    return annotation if _is_model(annotation) else model


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _expected(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return f"one of {_listed(annotation)}"
    if get_origin(annotation) in (Union, UnionType):
        return "a text, number or boolean"
    if annotation is str:
        return "a text"
    if annotation is int:
        return "a whole number"
    if annotation is float:
        return "a number"
    if annotation is bool:
        return "true or false"
    return "a list" if get_origin(annotation) is tuple else "a mapping"


def _listed(annotation: Any) -> str:
    return ", ".join(map(str, get_args(annotation)))


def _within(data: Any, path: Path) -> Path:
    """Return the part of `path` that exists in `data`; pydantic appends the members of a union."""
    for length, step in enumerate(path):
        inside = (
            step in data if isinstance(data, Mapping) else isinstance(step, int) and isinstance(data, list)
        )
        if not inside:
            return path[:length]
        data = data[step]
    return path


def _at(data: Any, path: Path) -> Any:
    for step in path:
        data = data[step]
    return data
