{{/* What the operator may do where pools are; each rule says why. */}}
{{- define "tidegate-operator.watchedRules" -}}
# Pools are read, never written.
- apiGroups: [tidegate.dev]
  resources: [inferencepools]
  verbs: [get, list, watch]
# What became of them.
- apiGroups: [tidegate.dev]
  resources: [inferencepools/status]
  verbs: [get, update, patch]
# What routers read.
- apiGroups: [tidegate.dev]
  resources: [routetables]
  verbs: [get, list, watch, create, update, patch, delete]
# One Deployment per worker set.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, update, patch, delete]
# A pool's revisions and their stored renderings.
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, update, patch, delete]
# One headless Service per worker set.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, update, patch, delete]
# models.json of each worker set.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, update, patch, delete]
# Workers: their readiness and why one does not start; patch sets the pod-deletion-cost.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# Evictions take one worker of a pool at a time.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, update, patch, delete]
# Only routers reach a worker's inference ports.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, update, patch, delete]
# An HPA that aims at a child is reported, never fought.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch]
# Addresses of workers must lie in their pool's slices.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
# What happened, in `kubectl describe`.
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}
