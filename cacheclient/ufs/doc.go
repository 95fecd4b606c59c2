// Package ufs reads under stores: the places where the data really is. It is read-only, it
// keeps nothing, and it makes one attempt at a time; caching is above it, in the backends of
// [cacheclient.Client], and so is the decision to try again, for which [Retryable] is asked.
//
// [Open] turns a source as the user writes it into a [Store], and proves that it answers:
//
//	http://host/path/ https://host/path/   a tree of index pages (http*.go)
//	s3://bucket/prefix                     a bucket of an object store (s3*.go)
//	/a/directory file:///a/directory       a directory of this machine (local.go)
//	:sftp,host=name:/path :webdav,url=...: what else rclone speaks to, where Options.Remotes permits it (remote.go)
//
// # The life of a request
//
// Stat asks the source for one path and returns what tells this version from others: the ETag, the inode and its change
// time, or else the size and the time. Open asks for a range of exactly that version. Everything that
// the response says about its version and its range is compared with what was asked before the first
// byte is handed on, and the [Body] counts the bytes that come: one that ends early is
// [io.ErrUnexpectedEOF] and never a clean end, and so is one that goes on. What does not agree is
// [cacheclient.ErrStale]. Where the answer does not prove its version, [Body.Confirm] asks again.
//
// Whatever a store tells passes a border (guard.go) before anybody sees it: sizes, names, versions, and how much of
// a directory. What people should know of a source is kept as [Noted].
//
// # Why not rclone's backends for everything
//
// Options have rclone's names, and it knows how each provider of S3 is reached. But the bytes of http and s3 come
// through one HTTP client of our own (httpclient.go), because rclone's http backend takes a 200 for a 206, shows no
// ETag, no status and no Retry-After, and keeps a listing whole in memory. Its s3 backend drops each ETag that is no
// MD5, signs no HEAD, and shows odd bytes of a key as others; so the AWS SDK signs and lists (s3client.go, s3list.go).
// The local directory is read directly: rclone's backend keeps a listing whole in memory, fails all of it for one link
// through a file, and does not show the open file whose version is to be compared.
//
// # What guards what
//
// What the stores know is fixed when they are opened, but for a few atomic values that remember what a server turned
// out to be, and for what listings told lately, which has locks of its own. A Body belongs to one reader; its Close may
// come from another goroutine. Secrets come from the options file or the environment (options.go), are sent to the
// source's own host only, and are in no error and no log line: a URL is shown without its query and its user.
//
// D-014 and D-150 to D-153 say why.
package ufs
