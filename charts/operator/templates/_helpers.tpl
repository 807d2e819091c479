{{/* Name of this part's objects, from the release's name. */}}
{{- define "tidegate-operator.fullname" -}}
{{- printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tidegate-operator.selectorLabels" -}}
app.kubernetes.io/name: tidegate-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tidegate-operator.labels" -}}
{{ include "tidegate-operator.selectorLabels" . }}
app.kubernetes.io/part-of: tidegate
tidegate.dev/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Reference of an image: call with (list image-values tag-when-empty). */}}
{{- define "tidegate-operator.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end }}
{{- end }}

{{/* namespace/name of the router Service. */}}
{{- define "tidegate-operator.routerService" -}}
{{- .Values.routerService | default (printf "%s/%s" .Release.Namespace (printf "%s-router" .Release.Name | trunc 63 | trimSuffix "-")) }}
{{- end }}
