// Package faultproxy is a TCP proxy on loopback that misbehaves on demand, for tests of clients against real servers.
//
// # Life of a connection
//
// [Start] listens and accepts. Each accepted connection gets one of its own to the target, and two pipes, up (from
// the client to the target) and down. A pipe reads as fast as bytes come, and queues them with the time of their
// arrival; its other half delivers them as [Faults] says at that moment. So a delay is the delay of a long wire and
// not of a slow one: what is under way is bounded by the queue (some 64 MiB) and not by the delay. Ends and errors
// pass through the same queue: where delivery is stalled, neither side learns that the other is gone.
//
// [Proxy.Set] changes the faults of all connections while they run, [Proxy.Reset] ends them as a crashed peer does, and
// [Proxy.Refuse] closes the port itself.
package faultproxy
