// Package rights lists the rights of the controller, from which `make generate` writes deploy/rbac/role.yaml.
// TestRights runs a controller that has them and no others.
//
// Secrets: those that Datasets name are read one by one, those that are made are written; none are listed or watched.
//
// Pods are patched with an annotation by which their kubelet looks at their Secrets at once. A right to patch
// StatefulSets, as the controller may, could change pods anyway.
//
// Events are listed where pods are late, for what their statuses do not tell: a volume that cannot be mounted, a
// quota.
//
// +kubebuilder:rbac:groups=data.fluid.io,resources=datasets,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=data.fluid.io,resources=alluxioruntimes;dataloads,verbs=get;list;watch;patch;delete
// +kubebuilder:rbac:groups=data.fluid.io,resources=datasets/status;alluxioruntimes/status;dataloads/status,verbs=patch
// +kubebuilder:rbac:groups=data.fluid.io,resources=alluxioruntimes/finalizers,verbs=update
// +kubebuilder:rbac:groups=apps,resources=statefulsets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=services;configmaps;persistentvolumes;persistentvolumeclaims,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=storage.k8s.io,resources=storageclasses,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,namespace=millrace-system,verbs=create
// +kubebuilder:rbac:groups="",resources=pods/status,verbs=patch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch;list
// +kubebuilder:rbac:groups="",resources=events,namespace=millrace-system,verbs=create;patch
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,namespace=millrace-system,verbs=get;create;update
package rights
