// Package alluxio is the backend of [cacheclient.Client] over an Alluxio cluster: masters that know the names and where
// blocks are, workers that have blocks in memory, and the sources behind them. No JVM stands between a reader and its
// bytes where that can be helped.
//
// # The life of a read
//
// Names come from the leading master and are remembered as those of any other source (names.go, over
// embedded.Cache). A version is a file id and a block size (layout.go): block ids follow from it, and a file that
// changed at the source has another id. A read is cut at the borders of blocks (file.go), and each part is
// served by the first of the readers that has it (readers.go, and a file for each). They draw on:
//
//   - A tier of this machine: the worker tells the block's file, which is opened, mapped and lent (local.go,
//     blockfile.go, held.go). A file of one block is given to the kernel as it is.
//   - A fill: a cold block that this process is bringing from the source into a worker of this machine (fill.go,
//     fillfile.go, fillrun.go). The first reader has its bytes while the worker still makes the file.
//   - A stream from a worker that has it (remote.go, stream.go): chunks ahead of the reader, never copied.
//   - The source (cold.go, sources.go), if what it tells of the file is the version that the masters know. On the way
//     the block goes into a worker: written into the tier's own file where the worker is of this machine, given to it
//     by gRPC where it is of another (push.go). Either way the source is read once.
//   - A worker that reads its under store, where this machine does not reach the source. What it brings is shown only
//     when the masters have compared the file with the source since.
//
// An error passes the part on to the next reader. Where none has the block, one log line says what was tried.
//
// # While Alluxio is away
//
// What is known stays known, what is open stays open, and the rest is described and read by the sources alone
// (client.go), under identities of their own, until a master answers again.
//
// # What guards what
//
// Client.mu guards what is open and what is being filled; file.mu what one open file knows; streams.mu the streams of
// one version, which all its openers share; stream.mu and fill.mu the bytes that are here. They are taken in the
// order file.mu or streams.mu, then stream.mu or fill.mu, then Client.mu: the start of a request of a fill counts it
// with the client. Bytes on loan have references (blockFile, lentChunk): what is lent stays valid whatever is closed,
// evicted or ended meanwhile.
//
// D-044, D-048 and D-058 say why.
package alluxio
