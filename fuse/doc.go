// Package fuse shows a [cacheclient.Client] as a read-only directory through the
// kernel's FUSE protocol.
//
// The life of a session. Package mountpoint opens /dev/fuse and calls mount(2), here ([Mount]) or in another
// process; [Serve] reads the kernel's INIT, answers it and starts workers.
// Each worker reads one request from the device, serves it and writes the
// reply; one more is started whenever none is left waiting, because a handler may wait
// for a slow source while FORGET and INTERRUPT must still be read. The session ends when
// the kernel says that the file system is gone: workers end, contexts are cancelled, files
// are given back to the client, and [Session.Wait] returns.
//
// The life of a request. worker.go reads it and looks at the header (wire.go). READ is served by read.go, which lends
// bytes from the client and hands them to the kernel in one writev(2), with no copy of our own. INTERRUPT cancels the
// context of the request that it names where the caller is dying (inflight.go, caller.go). All others are decoded by
// go-fuse's ProtocolServer, which calls the methods of filesystem: filesystem.go (names and attributes), dir.go
// (listings), open.go (opening) and readonly.go (everything that is refused).
//
// A session outlives its process. The kernel keeps a connection for as long as any process has its device, so
// another one, the holder, has a copy ([Session.Handles]) of that and of the state (state.go): a file in memory with
// all that the next process cannot find out by itself. That is INIT, the nodes that the kernel knows, the handles
// that are open and how the kernel reads them (backing ids belong to the connection and not to the process). Node ids
// and offsets in directories are the client's and mean the same to all callers. The next process gives both to [Serve],
// which tells its decoder what INIT agreed upon, and has the kernel send again what was not answered
// (FUSE_NOTIFY_RESEND, Linux 6.9).
//
// What is done twice, because a process died between doing it and answering, must be as if done once. Each OPEN gives
// a handle of its own and keeps the request's number: the same request gets the same handle, and a RELEASE of a
// handle that is gone is nothing. A LOOKUP that is sent again counts twice, and a FORGET that was read and not carried
// out is lost, so the kernel's count may be the lower one: such a node stays known until the session ends. Buffers
// that the kernel copies to and from are resident (worker.go says why).
//
// Two ways to read a file. Where the client has the whole file in one local file and
// the process has CAP_SYS_ADMIN, OPEN registers that file with the kernel, which then reads it
// without us (passthrough). Otherwise the kernel sends READs (copy). An inode has one of the
// two modes while it is open: see iomode.go.
//
// What the kernel may keep. A node is one version of a file: its pages never
// change and stay cached between opens. Its attributes, which may change without another version, are believed as long
// as its name, and come anew with it. A name is
// believed for Config.NameTTL and the absence of one for Config.TTL; a file that
// changed has another id, so the kernel drops the old inode by itself. An open of a version that the source no
// longer has answers ESTALE, upon which the kernel looks the name up again.
//
// Errors become errno in one place, errno.go. The root's attributes and statfs are
// answered from memory, whatever the source does.
//
// What may not end. A request that was in service when its process died is served alone by the next one, and answered
// with EIO after two deaths or more (poison.go). A handler that hangs is left behind when its session ends
// (session.go). Files of an earlier process are opened side by side, each with a deadline (reopen.go).
//
// D-027, D-031, D-032, D-033, D-170, D-173 and D-174 say why.
package fuse
