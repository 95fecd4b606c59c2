// Package mountpoint makes, finds and ends the kernel's mounts of FUSE connections. It serves none: a
// mount lives in the kernel, and the process that serves it may be another, or come later.
//
// The life of a mount:
//
//  1. [Prepare] resolves the directory, [Attach] opens /dev/fuse and calls mount(2), or has
//     fusermount3 do so for users, and returns the device.
//  2. A process answers the connection's INIT. Until then every question to the mount waits.
//  3. [Settle] sets what is set from outside: the read-ahead.
//  4. [Bind] shows it in another place. [At], [Of] and [IsStale] look it up in mountinfo without asking it.
//  5. [Detach] takes it away: plainly, lazily or abruptly. [Connection.Abort] ends a connection that does not answer.
package mountpoint
