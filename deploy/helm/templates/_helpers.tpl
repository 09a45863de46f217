{{/* Name of the objects. */}}
{{- define "obscura-poller.fullname" -}}
{{- $name := .Values.fullnameOverride }}
{{- if not $name }}
{{- $name = contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) }}
{{- end }}
{{- $name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* Labels that select the pod. They never change. */}}
{{- define "obscura-poller.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "obscura-poller.labels" -}}
{{ include "obscura-poller.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "obscura-poller.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "obscura-poller.fullname" .) "default") }}
{{- end }}

{{- define "obscura-poller.image" -}}
{{- $missing := "image.repository is empty; name the image that you built, for example registry.example/obscura-poller" }}
{{- $repository := required $missing .Values.image.repository }}
{{- with .Values.image.digest }}
{{- printf "%s@%s" $repository . }}
{{- else }}
{{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* Name of the secret that contains the URL of the database. */}}
{{- define "obscura-poller.databaseSecret" -}}
{{- with .Values.database }}
{{- if and .url .existingSecret }}
{{- fail "database.url cannot be combined with database.existingSecret; set one of them" }}
{{- else if not (or .url .existingSecret) }}
{{- fail "database.existingSecret is empty; name the secret that contains the URL, or set database.url" }}
{{- end }}
{{- end }}
{{- .Values.database.existingSecret | default (printf "%s-database" (include "obscura-poller.fullname" .)) }}
{{- end }}

{{/* Name of the ConfigMap that contains the query files; empty for those of the image. */}}
{{- define "obscura-poller.queriesConfigMap" -}}
{{- with .Values.queries }}
{{- if and .files .existingConfigMap }}
{{- fail "queries.files cannot be combined with queries.existingConfigMap; set one of them" }}
{{- end }}
{{- end }}
{{- if .Values.queries.files }}
{{- printf "%s-queries" (include "obscura-poller.fullname" .) }}
{{- else }}
{{- .Values.queries.existingConfigMap }}
{{- end }}
{{- end }}

{{/*
Variables of the poller: the chart's own, the settings, which may override the first two, and extraEnv, which may override both.
Kubernetes would replace $(NAME) and $$ in a value.
*/}}
{{- define "obscura-poller.env" -}}
{{- $extra := list }}
{{- range .Values.extraEnv }}
{{- if has .name (list "POLLER_DATABASE_URL" "POLLER_DATABASE_URL_FILE" "POLLER_STATE_DIR") }}
{{- fail (printf "extraEnv sets %s; use `database` and `state`" .name) }}
{{- end }}
{{- $extra = append $extra .name }}
{{- end }}
{{- $own := dict
      "POLLER_INSTANCE" (include "obscura-poller.fullname" .)
      "OTEL_RESOURCE_ATTRIBUTES" (printf "k8s.namespace.name=%s" .Release.Namespace) }}
{{- $key := empty .Values.database.url | ternary .Values.database.existingSecretKey "database_url" }}
{{- $file := dict "POLLER_DATABASE_URL_FILE" (printf "/run/secrets/poller/%s" $key) }}
{{- range $name, $value := mergeOverwrite $own .Values.settings $file }}
{{- if not (has $name $extra) }}
- name: {{ $name }}
  {{- /* toJson writes a large number without an exponent. */}}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | replace "$" "$$" | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
