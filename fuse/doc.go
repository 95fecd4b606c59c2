// Package fuse shows a [cacheclient.Client] as a read-only directory through the
// kernel's FUSE protocol.
//
// The life of a session. [Mount] opens /dev/fuse, calls mount(2) (or asks fusermount3
// where the process may not), reads the kernel's INIT, answers it and starts workers.
// Each worker reads one request from the device, serves it and writes the
// reply; one more is started whenever none is left waiting, because a handler may wait
// for a slow source while FORGET and INTERRUPT must still be read. The session ends when
// the kernel says that the file system is gone: workers end, contexts are cancelled, files
// are given back to the client, and [Session.Wait] returns.
//
// The life of a request. worker.go reads it and looks at the header (wire.go). READ is
// served by read.go, which lends bytes from the client and hands them to the kernel in one
// writev(2), with no copy of our own. INTERRUPT cancels the context of the request that it
// names (inflight.go). All others are decoded by go-fuse's ProtocolServer, which calls the
// methods of filesystem: filesystem.go (names and attributes), dir.go (listings),
// open.go (opening) and readonly.go (everything that is refused).
//
// What makes a session resumable by another process: a node id is the client's
// [cacheclient.Info.ID] and means the same to everybody; file handles are not used, what is
// open belongs to the node; the offset in a directory is the client's cursor; the bytes of
// INIT are kept. What cannot be derived is in nodes.go (names behind the ids) and
// iomode.go (how an open file is read, and its backing id).
//
// Two ways to read a file. Where the client has the whole file in one local file and
// the process has CAP_SYS_ADMIN, OPEN registers that file with the kernel, which then reads it
// without us (passthrough). Otherwise the kernel sends READs (copy). An inode has one of the
// two modes while it is open: see iomode.go.
//
// What the kernel may keep. A node is one version of a file: its pages never
// change and stay cached between opens, and its attributes are good for ever. A name is
// believed for Config.NameTTL and the absence of one for Config.TTL; a file that
// changed has another id, so the kernel drops the old inode by itself. An open of a version that the source no
// longer has answers ESTALE, upon which the kernel looks the name up again.
//
// Errors become errno in one place, errno.go. The root's attributes and statfs are
// answered from memory, whatever the source does.
package fuse
