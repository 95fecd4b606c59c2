// Package handover is how the descriptors of FUSE connections pass between the process that mounts, the
// holder, and the process that serves, the agent. It knows the wire and nothing of FUSE.
//
// A session is two descriptors and a description: the device, which is /dev/fuse after mount(2); the
// state, a file in memory without a name, in which the agent keeps what its successor must know (only the
// agent reads it); and the [Volume]. Both processes hold both descriptors all the time, so that the kernel
// keeps the connection while either is away.
//
// The holder always speaks first. The agent listens on a unix stream socket that only its own
// user and root may connect to; each connection carries one request and its answer:
//
//	attach  the volume, with the device, and with the state where the session was served before.
//	        The agent answers INIT, or replays it, and gives the state back.
//	list    the ids of the sessions that the agent serves.
//	take    one session's volume, device and state: what a restarted holder asks for.
//	detach  the session, whose mount is gone, has ended, or is ended.
//	stats   of one session.
//	lost    the pods that have to be restarted, for whom asks the agent about them.
//	watch   has no answer. The connection breaks when the agent ends: then the holder attaches
//	        what it holds to the next one.
//
// A message is a byte 0, its length in 3 bytes, big endian, and JSON of at most MaxMessage bytes. Descriptors
// come as SCM_RIGHTS with the first byte of a message, the device first. A receiver closes what it
// cannot use, so that nothing leaks whatever the outcome.
package handover
