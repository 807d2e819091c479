{{/* Name of this part's objects, from the release's name. */}}
{{- define "tidegate-router.fullname" -}}
{{- printf "%s-router" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tidegate-router.selectorLabels" -}}
app.kubernetes.io/name: tidegate-router
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tidegate-router.labels" -}}
{{ include "tidegate-router.selectorLabels" . }}
app.kubernetes.io/part-of: tidegate
tidegate.dev/component: router
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Reference of an image: call with (list image-values tag-when-empty). */}}
{{- define "tidegate-router.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end }}
{{- end }}
