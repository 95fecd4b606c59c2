// Package embedded is the cache of one machine: a cacheclient.Client that keeps what it read from
// an under store in local directories, a tmpfs first.
//
// What lives where. Each version of each file is an entry. On its level it is two files: the data, a
// sparse file with every byte at its own offset, so that a complete one can be passed through to the
// kernel; and the state, which vouches for blocks of 1 MiB (state.go tells the format). The directory of a
// source on a tier is locked by the process that serves it; Prune removes those that no process serves. A process that
// starts takes over what it finds in the background (adopt.go), and serves single entries of it meanwhile. It checks
// each block against its checksum before the first use, unless the file was sealed in the same boot (seal.go).
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
//  5. Without room (the quota is taken by open files, the tier is full or read-only) the fetch goes to a small pool in
//     memory: slower, not wrong. This memory and the buffers of fetches are one Budget, which the caches of a process
//     may share (budget.go).
//  6. Past the high mark the evictor moves the least recently used idle files to the next level, or
//     removes them, down to the low mark.
//
// Names are remembered as the source told them (metadata.go, listing.go), and a walk through a tree is listed ahead of
// (walk.go). While the source is silent, what is known serves on (health.go).
//
// A process that takes the place of another opens by Resume what the other had open: also a version that the source
// has no more, of which a newer one may be cached too. Versions that were replaced stay for that a while after the
// start.
//
// The index (index.go) has an entry for each file that is in use or was a moment ago, and a stub for each other. What
// is looked for, moved or removed is taken off it with a claim (reclaim.go), since no file is touched with Cache.mu
// held; an opener waits for that. A process that ends leaves its index to the next (snapshot.go).
//
// Nothing that is there is believed for good: a damaged state, a cut data file, a block that cannot be read are fetched
// again (loan.go), and only what is proven damaged is removed.
//
// Locks: entry.admit, then Cache.mu, then entry.mu, then Budget.mu or Cache.gate. Nothing waits for the source
// with a lock held.
//
// D-016, D-017, D-023 and D-130 to D-136 say why.
package embedded
