// Package objects says what a Dataset and its AlluxioRuntime become. It consists of pure functions: the same specs give
// the same objects, byte by byte, and nothing here asks a server.
//
// [Desired] is the way in. It resolves the mounts (mounts.go) and the tiers (tiers.go), checks what the API server
// could not check, and returns a [Plan]: the typed objects in the order in which they are applied, and the mounts that
// Alluxio is to have. Each kind of object has a file: properties.go writes Alluxio's configuration, masters.go and
// workers.go the StatefulSets from the pieces in pods.go, services.go, policies.go and volume.go the rest.
//
// # Where secrets are
//
// A secret option of a mount is in [Plan.Mounts], which goes to Alluxio's leading master in the mount call; or, for a
// source behind a gateway, in a file of the Secret NAME-gateway, which masters and workers mount. What a node needs to
// read the source by itself is in the Secret NAME-node, which the volume names. No secret is in a ConfigMap, an
// argument, an environment variable or an attribute.
package objects
