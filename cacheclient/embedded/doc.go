// Package embedded is the cache of one machine: a cacheclient.Client that keeps what it read from
// an under store in local directories, a tmpfs first.
//
// What lives where. Each version of each file is an entry. On its level it is two files: the data, a
// sparse file with every byte at its own offset, so that a complete one can be passed through to the
// kernel; and the state, which vouches for blocks of 1 MiB (state.go tells the format). The directory of a
// source on a tier is locked by the process that serves it. A process that starts takes over
// what it finds, and checks each block against its checksum before the first use.
//
// The life of a read:
//
//  1. Open asks the source whether the version still stands, if it was not asked lately
//     (metadata.go), and takes a reference to the entry (tier.go): what is open is not evicted.
//  2. Read gathers the bytes if they are here (entry.go) and lends them from a mapping of the data file: one
//     writev hands them to the kernel, and this process never touches them.
//  3. What is missing is demanded (read.go): each block belongs to one fetch however many readers wait.
//     A stream of reads (readahead.go) fetches ahead in longer runs, side by side.
//  4. A fetch (fetch.go) reserves room on a level, makes one range request, and writes pieces to the tier as they
//     come; readers are woken for each. It goes on after an error where it stopped. A block that came whole
//     is vouched for; what came of a broken one is given back.
//  5. Without room (the quota is taken by open files, the tier is full or read-only) the fetch goes to
//     a small pool in memory (staging.go): slower, not wrong.
//  6. Past the high mark the evictor moves the least recently used idle files to the next level, or
//     removes them, down to the low mark.
//
// Locks: entry.admit, then Cache.mu, then entry.mu, then staging.mu or Cache.gate. Nothing waits for the source
// with a lock held.
package embedded
