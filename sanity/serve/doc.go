// Package serve is the web server that the demo, the benchmarks and the tests read from:
// net/http over a directory, every file of it, with counters and with limits.
//
// What differs from http.FileServer: a file called index.html is a file like any other,
// neither a redirect nor the face of its directory; every file has an ETag; what was
// asked and sent is counted; and the whole server, each connection and each request
// can be slowed down, so that a loopback server can stand for a remote one.
//
// The life of a request: [Server.ServeHTTP] counts it and waits Options.DelayPerRequest. A file
// is then sent by http.ServeContent, which knows ranges, HEAD and conditions, through a sender
// that counts the body and keeps to the limits; without limits the sender hands the file to the
// kernel (sendfile). A directory is answered with the page that http.FileServer writes.
//
// The fields of a Server are set once, the counters are atomic, and the listener
// is guarded by a lock of its own, so that a server may be stopped and started on the same
// address while it is being read: that is how a test takes its source away.
package serve
