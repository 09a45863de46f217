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

{{/* Refuse values that cannot be combined, with all reasons at once. */}}
{{- define "obscura-poller.check" -}}
{{- $problems := list }}
{{- $targets := include "obscura-poller.files" (list . "targets") }}
{{- $election := .Values.leaderElection.enabled }}
{{- range $name, $used := dict "leaderElection.enabled" $election "shards" .Values.shards }}
{{- if and $used (not $targets) }}
{{- $problems = append $problems
      (printf "%s needs targets; set targets.files, targets.existingConfigMap or targets.existingSecret" $name) }}
{{- end }}
{{- end }}
{{- with .Values.database }}
{{- if and .url .existingSecret }}
{{- $problems = append $problems "database.url cannot be combined with database.existingSecret; set one of them" }}
{{- else if and .url $targets }}
{{- $problems = append $problems
      "database.url cannot be combined with targets; write it to a secret, and name that in database.existingSecret" }}
{{- else if not (or .url .existingSecret $targets) }}
{{- $problems = append $problems
      "database.existingSecret is empty; name the secret that contains the URL, or set database.url or targets" }}
{{- end }}
{{- end }}
{{- with .Values.state.persistence }}
{{- if and .enabled .existingClaim $.Values.shards }}
{{- $problems = append $problems
      "state.persistence.existingClaim cannot be combined with shards, because each shard has its own claim; unset it" }}
{{- else if and .enabled $election (not $.Values.shards) }}
{{- $problems = append $problems
      "state.persistence cannot be combined with leaderElection, because two pods cannot use one volume; disable it" }}
{{- end }}
{{- end }}
{{- $remedies := dict
      "POLLER_DATABASE_URL" "use `database`"
      "POLLER_DATABASE_URL_FILE" "use `database`"
      "POLLER_STATE_DIR" "use `state`"
      "POLLER_TARGETS" "use `targets`"
      "POLLER_SHARD" "use `shards`"
      "POLLER_SHARDS" "use `shards`"
      "POLLER_LEADER_ELECTION" "use `leaderElection`"
      "POLLER_LEADER_ELECTION_FILE" "use `leaderElection`" }}
{{- if $election }}
{{- $_ := set $remedies "POLLER_INSTANCE" "remove it, because with leaderElection each pod has its own name" }}
{{- end }}
{{- $extra := list }}
{{- range .Values.extraEnv }}
{{- $extra = append $extra .name }}
{{- end }}
{{- range $place, $names := dict "settings" (keys .Values.settings | sortAlpha) "extraEnv" $extra }}
{{- range $name := $names }}
{{- with get $remedies $name }}
{{- $problems = append $problems (printf "%s sets %s; %s" $place $name .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $problems }}
{{- fail (join "\n" $problems) }}
{{- end }}
{{- end }}

{{/* Name of the secret with connection strings; empty if the targets need none. */}}
{{- define "obscura-poller.databaseSecret" -}}
{{- with .Values.database }}
{{- .existingSecret | default (empty .url | ternary "" (printf "%s-database" (include "obscura-poller.fullname" $))) }}
{{- end }}
{{- end }}

{{/* Source of the volume of `queries` or `targets`; empty if none is set. The argument is a list of the root and the key. */}}
{{- define "obscura-poller.files" -}}
{{- $key := last . }}
{{- $values := get (first .).Values $key }}
{{- $set := list }}
{{- range list "files" "existingConfigMap" "existingSecret" }}
{{- if get $values . }}
{{- $set = append $set (printf "%s.%s" $key .) }}
{{- end }}
{{- end }}
{{- if gt (len $set) 1 }}
{{- fail (printf "%s cannot be combined with %s; set one of them" (first $set) (last $set)) }}
{{- end }}
{{- with $values }}
{{- if .files }}
configMap:
  name: {{ printf "%s-%s" (include "obscura-poller.fullname" (first $)) $key | quote }}
{{- else if .existingConfigMap }}
configMap:
  name: {{ .existingConfigMap | quote }}
{{- else if .existingSecret }}
secret:
  secretName: {{ .existingSecret | quote }}
  defaultMode: 0440
{{- end }}
{{- end }}
{{- end }}

{{/* Name of the Lease; each shard appends its index. */}}
{{- define "obscura-poller.lease" -}}
{{- .Values.leaderElection.lease | default (include "obscura-poller.fullname" .) }}
{{- end }}

{{/* Specification of a claim for the state. */}}
{{- define "obscura-poller.claim" -}}
{{- with .Values.state.persistence -}}
accessModes: [{{ .accessMode }}]
{{- with .storageClassName }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}
{{- end }}

{{/*
Variables of the poller: the chart's own, the settings, which may override the first two, and extraEnv, which may override both.
Kubernetes would replace $(NAME) and $$ in a value.
*/}}
{{- define "obscura-poller.env" -}}
{{- $election := .Values.leaderElection.enabled }}
{{- $extra := list }}
{{- range .Values.extraEnv }}
{{- $extra = append $extra .name }}
{{- end }}
{{- $own := dict
      "POLLER_INSTANCE" .Workload
      "OTEL_RESOURCE_ATTRIBUTES" (printf "k8s.namespace.name=%s" .Release.Namespace) }}
{{- $fixed := dict }}
{{- if include "obscura-poller.files" (list . "targets") }}
{{- $_ := set $fixed "POLLER_TARGETS" "/etc/poller/targets" }}
{{- else }}
{{- $key := empty .Values.database.url | ternary .Values.database.existingSecretKey "database_url" }}
{{- $_ := set $fixed "POLLER_DATABASE_URL_FILE" (printf "/run/secrets/poller/%s" $key) }}
{{- end }}
{{- if $election }}
{{- $_ := set $fixed "POLLER_LEADER_ELECTION" (printf "kubernetes:%s" (include "obscura-poller.lease" .)) }}
{{- end }}
{{- if .Values.shards }}
{{- $_ := set $fixed "POLLER_SHARDS" .Values.shards }}
# The poller appends the index of the shard to POLLER_INSTANCE, so each has the name of its pod.
- name: POLLER_SHARD
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
{{- else if $election }}
{{- $_ := unset $own "POLLER_INSTANCE" }}
- name: POLLER_INSTANCE
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
{{- range $name, $value := mergeOverwrite $own .Values.settings $fixed }}
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
