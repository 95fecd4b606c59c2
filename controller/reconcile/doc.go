// Package reconcile brings the cluster to what Datasets and AlluxioRuntimes say, and tells in their status how far it
// is.
//
// # Life of a Dataset
//
// One queue holds the names of Datasets; a Dataset and the AlluxioRuntime of its name are one thing here. Whatever
// changes, the specs, an object that was made for them, a pod that uses the claim, what a leading master says, puts the
// name into the queue (watches.go), and [Reconciler.Reconcile] looks at everything anew: nothing depends on what was
// seen before, so it does not matter when a controller is stopped or killed.
//
//  1. observe.go reads the two specs, what was made, and what the masters said last.
//  2. Where one of them is being deleted, remove.go takes everything down in order, and waits for pods that use the
//     claim.
//  3. Package objects says what there is to be. apply.go sends each object that differs to the API server, by
//     server-side apply.
//  4. Package masters is told which mounts Alluxio is to have. It never keeps the queue waiting.
//  5. pods.go marks pods that do their work as ready, and rollout.go replaces those whose spec is old, the leader last.
//  6. trouble.go asks package trouble what keeps pods from running. Where pods are late and say nothing, it reads the
//     warnings of the namespace.
//  7. report.go writes status, conditions and events, if they have changed. What they say is decided in status.go.
//
// # What guards what
//
// A Dataset is reconciled by one goroutine at a time. What goroutines share are the caches of client-go,
// [masters.Clusters], the cache of Secrets and the warnings that were read last, each with a lock of its own.
//
// D-071 says why.
package reconcile
