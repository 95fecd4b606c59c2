// Package wire is Alluxio's gRPC protocol, as much of it as millrace speaks, as Go code.
//
// The .proto files here are our own and minimal. The names of packages, services, methods, messages and the
// numbers of fields are Alluxio 2.9's; a message has only the fields that we set or read. Others that a server
// sends are kept as unknown and do no harm. All files generate into this one package; make generate writes the
// *.pb.go files and make lint fails where they are not current.
//
//	common.proto              addresses, block locations, times to live, permissions, metrics
//	version.proto             finding the leading master
//	sasl_server.proto         authentication
//	file_system_master.proto  the leading master: status, listings, mounts, directories, free, pin
//	block_master.proto        the leading master: capacity, workers, where a block is
//	meta_master.proto         the leading master: masters, configuration
//	metric_master.proto       the leading master: metrics
//	block_worker.proto        a worker: read, open, cache, write, remove blocks
//	dataserver.proto          how a worker finds a block in the under store
//
// What is dangerous to leave unset is said at each message, and it is a lot: proto2's zero for a time to live
// means "delete from the source", for a block's length "cache nothing and call it cached".
//
// The tests compare every message, field, enum value and method with those of a running master and of the pinned
// jar, and hold against a real worker what the files say of writing blocks.
//
// Nothing here connects, retries or decides; that is for the packages above.
package wire
