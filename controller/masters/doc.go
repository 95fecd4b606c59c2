// Package masters speaks to the leading masters of all Datasets: it brings Alluxio's mounts to what the specs say, and
// reads sizes, workers and roles. It is the only part of the controller that talks to Alluxio.
//
// # Life of a Dataset here
//
// The reconciler tells with [Clusters.Want] what a Dataset's Alluxio is to have, and gets with [Clusters.State] what
// was found out last; neither waits. For each Dataset a goroutine asks the masters (poll.go): soon after a change and
// then at an interval with jitter that grows while nothing changes. It repairs the mounts (mounts.go) in the same
// round, so a mount that was removed by hand comes back. When something has changed it tells the reconciler.
// Connections live for one round, so that a thousand Datasets hold none between rounds, and a bounded number of rounds
// runs at a time. Between rounds the masters are asked every few seconds whether one leads (leader.go): a process that
// is frozen makes no event.
//
// How large the sources are (sizes.go) is found out by a walk over the leader's tree, beside the rounds, after each
// change of the mounts and then rarely.
//
// [Clusters.Forget] ends the goroutine and waits for it; so does the end of [Clusters.Start].
package masters
