"""A real single-node Kubernetes on a bare Linux machine, in a network namespace of its own.

etcd, kube-apiserver, controller manager, scheduler, kubelet and kube-proxy are built from Go
modules (e2e/kubernetes/go.mod); containerd, runc and the CNI plugins are Debian's. Nothing
leaves the machine. `up` may be repeated after any crash; `down` ends what `up` started, by pid.
"""
