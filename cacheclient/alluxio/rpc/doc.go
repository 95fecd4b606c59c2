// Package rpc speaks Alluxio's gRPC protocol to masters and workers: connections, authentication, the leader,
// typed calls. It knows no files and no caching policy; those are in the package above.
//
// # The life of a call to the masters
//
// [Connect] gives every session of a process that names the same masters the same [Cluster], so that ten mounts
// look for a leader once. A call goes to the leader that is known (masters.go). If none is, one search for all callers
// asks each master whether it leads, again and again at a pace of its own (leader.go): a master that hangs holds up
// nobody. What fails because the master does not lead any more, or is gone, forgets the leader, and what is safe to
// repeat is repeated with the next. A call that gets no answer for a while puts the leader in doubt: the same search
// looks for another beside it, and when there is one, all calls at the old one end and are repeated. A leader in safe
// mode or with too much to do is asked again and not forgotten.
//
// The absence of a leader is taken for an election at first, and calls wait for its end until their deadlines. When it
// has lasted longer than elections do, those that come fail at once with what the masters said last, and the search
// goes on while anybody asks, so that they succeed soon after a master leads again.
//
// # Connections
//
// An [Endpoint] is one server: one HTTP/2 connection, one authentication. Alluxio registers a channel id for as long
// as the stream that authenticated it is open, so that stream lives as long as the endpoint uses the id, and every call
// carries the id (sasl.go). Callers share a handshake and its failure. A server that has forgotten the id (it
// restarted, or purged it) answers UNAUTHENTICATED: the call is made again with a new id. An id is never used twice,
// because authenticating an id that is registered throws out its first holder.
//
// A [Worker] is an endpoint with a breaker: after failures in a row no call waits for it until it was left alone for a
// moment. The streams of blocks (read.go, write.go) outlive the calls that start them. Block data comes as a
// [BlockReader], whose chunks are never parsed into messages (codec.go): they are the buffers that the transport
// received, handed on with a reference.
//
// # Errors
//
// All say in one sentence what a server is or does (errors.go). They are cacheclient.ErrUnavailable where another
// attempt or another server may help, and those of io/fs where the server has said clearly what is the matter.
//
// # What loses data, and is therefore written in one place
//
// Every request that may load metadata carries ttl -1 and the action FREE (safe in metadata.go): with the fields
// unset, a server reads the defaults of proto2, 0 and DELETE, and deletes the file from the under store when its
// checker comes by. Cache requests carry the exact length of the block, and a BlockWriter counts its bytes: what is too
// short is a block to Alluxio, and damaged. Every reader counts, too ([ErrShort]).
//
// # What guards what
//
// Cluster, Endpoint and Worker may be used from many goroutines; each has a mutex whose comment says what it guards,
// and none is held while a server is waited for. Of two, that of Workers is taken before a Worker's. A BlockReader and
// a BlockWriter belong to one goroutine, but for Abort.
package rpc
