package masters

import (
	"context"
	"math"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// Reads are sums since the leading master began: what clients have read.
type Reads struct {
	// Local bytes came from the tier of the reader's own node, Remote bytes from a worker by network, those of the under
	// stores among them; Under bytes workers had to read from under stores for that.
	Local, Remote, Under int64
	// The same for the last minutes, in bytes a minute.
	LocalRate, RemoteRate, UnderRate float64
}

// reads asks for them.
func reads(ctx context.Context, conn *rpc.Cluster) (Reads, error) {
	m, err := conn.Metrics(ctx)
	if err != nil {
		return Reads{}, err
	}
	return Reads{
		Local: int64(m["Cluster.BytesReadLocal"]), Remote: int64(m["Cluster.BytesReadRemote"] +
			m["Cluster.BytesReadDomain"]),
		Under:      int64(m["Cluster.BytesReadUfsAll"]),
		LocalRate:  m["Cluster.BytesReadLocalThroughput"],
		RemoteRate: m["Cluster.BytesReadRemoteThroughput"] + m["Cluster.BytesReadDomainThroughput"],
		UnderRate:  m["Cluster.BytesReadUfsThroughput"],
	}, nil
}

// Ratios are parts of what was read, from 0 to 1.
type Ratios struct {
	// Cache is what came from the cache: Local from the tier of the reader's own node, Remote from a worker by network.
	Cache, Local, Remote float64
}

// Hits are the ratios of all bytes; not known where nothing was read yet.
func (r Reads) Hits() (Ratios, bool) {
	return ratios(float64(r.Local), float64(r.Remote), float64(r.Under))
}

// Throughput are the ratios of the last minutes; not known where nothing was read in them.
func (r Reads) Throughput() (Ratios, bool) { return ratios(r.LocalRate, r.RemoteRate, r.UnderRate) }

// ratios splits what was read. A worker's bytes from the under store reach the reader by network and are counted there
// too.
func ratios(local, remote, under float64) (Ratios, bool) {
	all := local + remote
	if all < 1 {
		return Ratios{}, false
	}
	under = min(under, remote)
	return Ratios{Cache: 1 - under/all, Local: local / all, Remote: (remote - under) / all}, true
}

// tell reports whether ratios differ from those before by so much that people would see it.
func (r Reads) tell(before Reads) bool {
	differ := func(a, b Ratios, aKnown, bKnown bool) bool {
		const step = 0.001
		far := func(x, y float64) bool { return math.Abs(x-y) >= step }
		return aKnown != bKnown || far(a.Cache, b.Cache) || far(a.Local, b.Local) || far(a.Remote, b.Remote)
	}
	hits, known := r.Hits()
	hitsBefore, knownBefore := before.Hits()
	rates, ratesKnown := r.Throughput()
	ratesBefore, ratesKnownBefore := before.Throughput()
	return differ(hits, hitsBefore, known, knownBefore) || differ(rates, ratesBefore, ratesKnown, ratesKnownBefore)
}
