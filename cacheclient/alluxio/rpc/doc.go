// Package rpc speaks Alluxio's gRPC protocol to masters and workers: connections, authentication, the leader,
// typed calls. It knows no files and no caching policy; those are in the package above.
//
// # The life of a call
//
// [Connect] gives every session of a process that names the same masters the same [Cluster], so that ten mounts
// probe for a leader once. A call to a master goes to the leader that is known; if none is, all masters are asked at
// once whether they lead, and again after a pause with jitter until the deadline. An answer that says that the
// master does not lead any more forgets the leader, and what is safe to repeat is repeated with the next. A call that
// gets no answer for a while has the masters asked again beside it: a leader that hangs is left for one that does not.
//
// An [Endpoint] is one server: one HTTP/2 connection, one authentication. Alluxio registers a channel id for as long
// as the stream that authenticated it is open, so that stream lives as long as the endpoint uses the id, and every call
// carries the id. A server that has forgotten it (it restarted, or purged it) answers UNAUTHENTICATED: the call is
// made once more with a new id. An id is never used twice, because authenticating an id that is registered throws
// out its first holder.
//
// A [Worker] is an endpoint with a breaker: after failures in a row nobody waits for it until it was left alone for
// a moment. Block data comes as a [BlockReader], whose chunks are never parsed into messages: they are the buffers
// that the transport received, handed on with a reference.
//
// # What loses data, and is therefore written in one place
//
// Every request that may load metadata carries ttl -1 and the action FREE (safe in metadata.go): with the fields
// unset, a server reads the defaults of proto2, 0 and DELETE, and deletes the file from the under store when its
// checker comes by. Cache requests carry the exact length of the block: a wrong one poisons it.
//
// # What guards what
//
// Cluster, Endpoint and Worker may be used from many goroutines; each has a mutex whose comment says what it guards.
// A BlockReader belongs to one goroutine.
package rpc
