// Package gateway shows a source as one read-only bucket of an S3 server, so that what speaks S3 can read what speaks
// something else: Alluxio mounts a web server's index pages by its S3 under store. It keeps no data.
//
// # The life of a request
//
//  1. route.go checks the signature (SigV4, by rclone's gofakes3/signature), refuses everything that would write, waits
//     for one of Config.MaxRequests places, and finds the operation.
//  2. A key is the path of a file; a directory is the empty object "dir/", as object stores mark directories, and the
//     common prefix of what is below it.
//  3. HEAD and GET (object.go) describe the file, from what a listing or a request learned within Config.Revalidate
//     (attributes.go), else by asking the source. GET opens exactly that version before the first byte of the
//     response, so that a source that is down is a 503 and never a short body.
//  4. The bytes stream through one buffer (stream.go). A source that breaks off is asked again for the rest of the
//     same version; when that fails, or the file has changed, the connection is cut short of its Content-Length: no
//     mix of versions, and no end that looks like one. A client that takes no bytes for a while gives its connection
//     to the source back, and the source is asked for the rest when the client goes on.
//  5. A listing (list.go) walks directories in the order of keys (walk.go) and asks for the attributes that the
//     source's own listing lacks. A directory is sorted in windows of bounded memory (window.go), which the next page
//     goes on with.
//
// # What guards what
//
// Memory is bounded by places, not by clients: a buffer for each stream, a few listings at a time, caches of windows
// and attributes with a limit, and a limit of connections (serve.go). The source sees at most Config.Connections
// requests at a time, of which one is kept from streams, so that a name is looked up while all others read.
//
// Keys (keys.go) are made here and kept in a file that only its owner reads. The secret is in no log, error or
// argument.
//
// Health and metrics have a listener of their own (admin.go), because a bucket's address space has no place for them.
package gateway
