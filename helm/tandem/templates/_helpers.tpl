{{/* Name of the application, cut to what a label may hold. */}}
{{- define "tandem.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of the objects: the release's, with the application's unless it is in it already. Room is left for suffixes. */}}
{{- define "tandem.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "tandem.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tandem.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels that pods are selected by; they never change. */}}
{{- define "tandem.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tandem.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "tandem.labels" -}}
{{ include "tandem.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The image, by digest where there is one. */}}
{{- define "tandem.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The configuration file. What the image's environment decides, a file cannot: say so instead of ignoring it. */}}
{{- define "tandem.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $server := $config.server | default dict }}
{{- range $key := list "data_dir" "http_address" "grpc_address" "ops_address" }}
{{- if hasKey $server $key }}
{{- fail (printf "config.server.%s: the image sets it, and probes, Services and the volume go by that; take it out" $key) }}
{{- end }}
{{- end }}
{{- /* YAML's unquoted on and off. */ -}}
{{- if kindIs "bool" $server.admin }}
{{- $_ := set $server "admin" (ternary "on" "off" $server.admin) }}
{{- end }}
{{- if .Values.backup.enabled }}
{{- range .Values.extraEnv }}
{{- if and (eq .name "TANDEM__SERVER__ADMIN") (ne (toString .value) "on") }}
{{- fail "extraEnv: backup.enabled needs the administration, which TANDEM__SERVER__ADMIN switches off; take it out" }}
{{- end }}
{{- end }}
{{- if ne (get $server "admin" | default "on") "on" }}
{{- fail "config.server.admin: backup.enabled needs it on, and sees to that; take it out" }}
{{- end }}
{{- $_ := set $server "admin" "on" }}
{{- $_ := set $config "server" $server }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* Name of the backups' objects; a CronJob's leaves room for what its runs add. */}}
{{- define "tandem.backupName" -}}
{{ include "tandem.fullname" . | trunc 45 | trimSuffix "-" }}-backup
{{- end }}

{{/* Labels of the backups' pods: not those that Services and the PodDisruptionBudget select. */}}
{{- define "tandem.backupLabels" -}}
app.kubernetes.io/name: {{ include "tandem.name" . | trunc 56 | trimSuffix "-" }}-backup
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
