"""Settings source for environment variables and `*_FILE` secrets, which records each variable's name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic_settings import BaseSettings, EnvSettingsSource

from poller.config.settings import SETTINGS, SettingSource
from poller.model.diagnostics import Diagnostic, invalid
from poller.model.duration import format_duration
from poller.model.otlp_variables import OtlpVariables, resource_attributes
from poller.model.redaction import learn_environment
from poller.model.secrets import read_secret, show_path

_LIBPQ = ("PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE")
"""If one of these is set, libpq's own environment describes the database (PostgreSQL manual, 34.15)."""

_SERVICE_LINK = re.compile(
    r"POLLER_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets for a service called `poller` or `poller-...`; they are not settings."""

_RESOURCE = {"instance": "service.instance.id", "service_name": "service.name"}
"""Settings that OTEL_RESOURCE_ATTRIBUTES provides if no more specific variable is set."""


class Environment(EnvSettingsSource):
    """Settings from one environment: empty means unset, `*_FILE` names a secret; problems are collected."""

    def __init__(self, settings: type[BaseSettings], environ: Mapping[str, str]) -> None:
        names = {name for setting in SETTINGS.values() for name in setting.variables}
        # A variable that is filled from a file often ends with a line break.
        stripped = {name: value.rstrip("\r\n") for name, value in environ.items()}
        self._environ = {name: value for name, value in stripped.items() if value.strip() != ""}
        # Only known variables, because the library would also read one with the field's name, `timeout`.
        self._read = {name: value for name, value in self._environ.items() if name in names}
        self.problems: list[Diagnostic] = []
        learn_environment(self._environ)
        super().__init__(settings, case_sensitive=True)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return dict(self._read)

    def value_of(self, name: str) -> tuple[str, SettingSource] | None:
        """Return the value of the field `name` and the variable that sets it; None if it is unset."""
        setting = SETTINGS[name]
        if setting.secret and (secret := self._from_file(setting.variables[0])):
            return secret
        value, variable, _ = self.get_field_value(self.settings_cls.model_fields[name], name)
        if value is not None:
            if variable == "OTEL_METRIC_EXPORT_INTERVAL":
                value = self._milliseconds(variable, value)
            elif name == "export_timeout" and variable.startswith("OTEL_"):
                value = self._few_seconds(variable, value)
            return (value, SettingSource("variable", variable)) if value is not None else None
        if name == "traces" and (off := OtlpVariables(self._environ, "traces").disabled_by()):
            return "false", SettingSource("variable", off)
        if name in _RESOURCE and (attribute := resource_attributes(self._environ).get(_RESOURCE[name])):
            return attribute, SettingSource("variable", "OTEL_RESOURCE_ATTRIBUTES")
        return None

    def file_of(self, name: str) -> Path | None:
        """Return the file that contains the secret of the field `name`; None if it is unset."""
        file = self._environ.get(f"{SETTINGS[name].variables[0]}_FILE")
        return None if file is None else Path(file)

    def has_libpq(self) -> bool:
        """Return whether libpq's own variables describe a database."""
        return any(name in self._environ for name in _LIBPQ)

    def warnings(self) -> tuple[str, ...]:
        """Return warnings about unknown POLLER_* variables, each with a similar setting if there is one."""
        own = {setting.variables[0]: setting for setting in SETTINGS.values()}
        settings = {*own, *(f"{name}_FILE" for name, setting in own.items() if setting.secret)}
        messages = []
        for name in sorted(self._environ):
            if name.startswith("POLLER_") and name not in settings and not _SERVICE_LINK.fullmatch(name):
                near = difflib.get_close_matches(name, sorted(settings), n=1, cutoff=0.75)
                messages.append(f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
        return tuple(messages)

    def _from_file(self, variable: str) -> tuple[str, SettingSource] | None:
        where = f"{variable}_FILE"
        file = self._environ.get(where)
        if file is None:
            return None
        if variable in self._environ:
            self.problems.append(invalid(where, f"cannot be combined with {variable}; unset one of them"))
            return None
        try:
            value = read_secret(Path(file))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self.problems.append(invalid(where, f"{show_path(file)} cannot be read: {reason}"))
            return None
        return value, SettingSource("variable", where)

    def _milliseconds(self, variable: str, value: str) -> str | None:
        if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
            return f"{value.strip()}ms"
        self.problems.append(
            invalid(variable, f"{value!r} is not a number of milliseconds; write one like 60000")
        )
        return None

    def _few_seconds(self, variable: str, value: str) -> str | None:
        """Return the value; record a problem if it is so large that it probably means milliseconds."""
        if not re.fullmatch(r"\s*\d{4,12}(\.\d+)?\s*", value):
            return value
        example = format_duration(float(value) / 1000)
        self.problems.append(
            invalid(
                variable,
                f"{value.strip()!r} would mean seconds here, but milliseconds in the specification; "
                f"add the unit, for example {example}, or set POLLER_EXPORT_TIMEOUT={example}",
            )
        )
        return None
