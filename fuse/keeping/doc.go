// Package keeping is how a process that does nothing else keeps the descriptors of FUSE connections: the keeper of a
// node. Driver and agent have them too (package handover), so that any two of the three may die at once.
//
// The driver always speaks. The keeper listens on a unix stream socket that only its own user and root may connect to,
// opens nothing, reads nothing of what it keeps, and asks for nothing. Each connection has one request and its answer:
//
//	put    a session's device and state, under the volume's id and the name of its mount. What was kept under
//	       that id before is closed.
//	get    copies of both, with the name of the mount.
//	drop   what is kept under the id and, where it is given, of that mount.
//	list   the ids and the names of their mounts.
//	watch  stays open after its answer: the connection breaks when the keeper ends.
//	leave  the driver wants to end. It is refused by a keeper that ends itself.
//
// A message is a byte with the protocol's version, its length in 3 bytes, big endian, and JSON; two descriptors come as
// SCM_RIGHTS with the first byte of a put, and of the answer to a get. The protocol does not change, since a keeper is
// not replaced when the others are; fields may be added.
//
// A keeper that is asked to end stays until a driver that watches has all that it keeps, for up to [Patience], and a
// driver that is asked to end leaves only when the keeper has all that it holds, and stays. So all three may be
// replaced at once.
//
// D-245 and D-246 say why.
package keeping
