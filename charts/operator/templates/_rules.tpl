{{/* What the operator may do where pools are; each rule says why. create and patch are
     server-side apply. */}}
{{- define "tidegate-operator.watchedRules" -}}
# Pools are read, never written.
- apiGroups: [tidegate.dev]
  resources: [inferencepools]
  verbs: [get, list, watch]
# What became of them.
- apiGroups: [tidegate.dev]
  resources: [inferencepools/status]
  verbs: [update]
# Rollouts are read, never written.
- apiGroups: [tidegate.dev]
  resources: [modelrollouts]
  verbs: [get, list, watch]
# Where a rollout stands: a new operator goes on from there.
- apiGroups: [tidegate.dev]
  resources: [modelrollouts/status]
  verbs: [update]
# What routers read, written by plain update with resourceVersion.
- apiGroups: [tidegate.dev]
  resources: [routetables]
  verbs: [get, list, watch, create, update, delete]
# One Deployment per worker set; a pool's revisions and their stored renderings.
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
# One headless Service per worker set.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# models.json of each worker set; others' ConfigMaps are never listed.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
# Workers: their readiness and why one does not start; patch sets the pod-deletion-cost.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# Evictions take one worker of a pool at a time.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Only routers reach a worker's inference ports.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# An HPA that aims at a child is reported, never fought.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch]
# What happened, in `kubectl describe`.
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
