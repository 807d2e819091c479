{{/* What a router may do where pools are: read two kinds, nothing else. */}}
{{- define "tidegate-router.watchedRules" -}}
# Where requests may go.
- apiGroups: [tidegate.dev]
  resources: [routetables]
  verbs: [get, list, watch]
# A worker that terminates gets no new request, whatever its table says.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
{{- end }}
