// Package keeper has a mount outlive the process that serves it.
//
// A mount of `millrace mount` is two processes: the keeper, and its child, which mounts and serves. The child gives the
// keeper copies of the connection's device and of its state, over a socket. A child that dies without a farewell is
// replaced by another one, which gets both back as the descriptors behind that socket, and a reader of the mount
// meanwhile waits.
//
// The keeper has next to nothing to do, so it is a program of its own where that is installed, millrace-keeper, which
// starts in a few milliseconds and takes a few megabytes; else millrace itself keeps. Either way it is started by an
// [Order] in its environment: what to start, which it gets as an open file so that it starts the same program even when
// the file was replaced, and with which arguments.
//
// D-035 and D-036 say why.
package keeper
