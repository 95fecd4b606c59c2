package agent

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse"
)

// metric is a line of the table that says what is exported of each mount. The label
// "mount" is Mount.Name: it has as many values as the process has mounts. All other labels have
// the values written in the table. No path is ever a label.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(MountStatus) int64
}

func newMetric(
	kind prometheus.ValueType, name, help string, labels prometheus.Labels, value func(MountStatus) int64,
) metric {
	return metric{prometheus.NewDesc("millrace_"+name, help, []string{"mount"}, labels), kind, value}
}

// client is a metric that the mount's cacheclient counts.
func client(
	kind prometheus.ValueType, name, help string, labels prometheus.Labels, of func(*cacheclient.Counters) int64,
) metric {
	return newMetric(kind, name, help, labels, func(m MountStatus) int64 { return of(m.Counters) })
}

// session is a metric that the mount's FUSE session counts.
func session(
	kind prometheus.ValueType, name, help string, labels prometheus.Labels, of func(*fuse.Stats) int64,
) metric {
	return newMetric(kind, name, help, labels, func(m MountStatus) int64 { return of(m.Session) })
}

const (
	total   = prometheus.CounterValue
	current = prometheus.GaugeValue
)

// metrics is everything exported of a mount, but for its tiers.
var metrics = []metric{
	client(current, "known_files", "Files whose attributes are in memory.", nil,
		func(c *cacheclient.Counters) int64 { return c.FilesKnown }),
	client(current, "known_bytes", "Sum of the sizes of the known files.", nil,
		func(c *cacheclient.Counters) int64 { return c.BytesKnown }),
	client(total, "reads_total", "Reads, by whether all of their bytes were cached when they came.",
		prometheus.Labels{"result": "hit"},
		func(c *cacheclient.Counters) int64 { return c.Hits }),
	client(total, "reads_total", "Reads, by whether all of their bytes were cached when they came.",
		prometheus.Labels{"result": "miss"},
		func(c *cacheclient.Counters) int64 { return c.Misses }),
	client(total, "cache_sent_bytes_total",
		"Bytes lent from the cache to readers; the kernel's own reads by passthrough are not seen.", nil,
		func(c *cacheclient.Counters) int64 { return c.BytesCache }),
	client(total, "source_received_bytes_total", "Bytes received from the source.", nil,
		func(c *cacheclient.Counters) int64 { return c.BytesSource }),
	client(total, "source_requests_total", "Requests to the source.", nil,
		func(c *cacheclient.Counters) int64 { return c.SourceRequests }),
	client(total, "source_errors_total", "Requests to the source that failed.", nil,
		func(c *cacheclient.Counters) int64 { return c.SourceErrors }),
	client(total, "evicted_files_total", "Cached files that made room for others.", nil,
		func(c *cacheclient.Counters) int64 { return c.EvictedFiles }),
	client(total, "evicted_bytes_total", "Cached bytes that made room for others.", nil,
		func(c *cacheclient.Counters) int64 { return c.EvictedBytes }),
	client(total, "changed_files_total", "Files found to have changed at the source.", nil,
		func(c *cacheclient.Counters) int64 { return c.Changed }),
	client(total, "discarded_files_total", "Cached files thrown away because they were damaged.", nil,
		func(c *cacheclient.Counters) int64 { return c.Discarded }),
	session(total, "opens_total", "Opens of files, by how the kernel reads them.",
		prometheus.Labels{"mode": "passthrough"},
		func(s *fuse.Stats) int64 { return s.PassthroughOpens }),
	session(total, "opens_total", "Opens of files, by how the kernel reads them.", prometheus.Labels{"mode": "copy"},
		func(s *fuse.Stats) int64 { return s.CopyOpens }),
	session(total, "copied_bytes_total", "Bytes of files copied to the kernel.", nil,
		func(s *fuse.Stats) int64 { return s.ReadBytes }),
	session(current, "open_files", "Files that the kernel has open.", nil,
		func(s *fuse.Stats) int64 { return s.OpenFiles }),
	session(current, "kernel_nodes", "Files and directories that the kernel knows.", nil,
		func(s *fuse.Stats) int64 { return s.Nodes }),
	session(current, "waiting_requests", "Requests that may be waiting for the source.", nil,
		func(s *fuse.Stats) int64 { return s.InFlight }),
	session(current, "stalled_requests", "Requests that have been waiting for longer than 5 s.", nil,
		func(s *fuse.Stats) int64 { return s.Stalled }),
	session(total, "resumes_total", "Processes that took the mount over from one that ended.", nil,
		func(s *fuse.Stats) int64 { return s.Resumes }),
	session(total, "interrupted_requests_total", "Requests that were interrupted by who made them.", nil,
		func(s *fuse.Stats) int64 { return s.Interrupts }),
	session(total, "panics_total", "Requests that failed because of a defect in millrace.", nil,
		func(s *fuse.Stats) int64 { return s.Panics }),
	newMetric(current, "abnormal", "1 while the mount does not do what it should, 0 while it does.", nil,
		func(m MountStatus) int64 { return oneIf(m.Condition.Abnormal) }),
	newMetric(current, "start_time_seconds", "When the mount was made, in seconds since the epoch.", nil,
		func(m MountStatus) int64 { return m.Started.Unix() }),
}

// oneIf is a truth as a number.
func oneIf(ok bool) int64 {
	if ok {
		return 1
	}
	return 0
}

// The tiers. "level" is the tier's place, 0 the fastest; it has as many values as there are
// tiers.
var (
	tierQuota = prometheus.NewDesc("millrace_cache_quota_bytes", "Bytes that a tier may hold.",
		[]string{"mount", "level"}, nil)
	tierUsed = prometheus.NewDesc("millrace_cache_used_bytes", "Bytes that a tier holds.", []string{"mount", "level"},
		nil)
	tierUp = prometheus.NewDesc("millrace_cache_level_up", "1 while a tier takes data, 0 while it has a problem.",
		[]string{"mount", "level"}, nil)
)

// The bytes of reads. "source" is which source served them: local is a tier, staging the memory before it, worker
// another machine of a cluster, and under_store says that the reader waited for the source. What the kernel reads by
// itself is not seen.
var (
	readBytes = prometheus.NewDesc("millrace_read_bytes_total",
		"Bytes of reads by the source that served them; the kernel's own reads by passthrough are not seen.",
		[]string{"mount", "source"}, nil)
	sources = map[cacheclient.Origin]string{
		cacheclient.OriginCache:   "local",
		cacheclient.OriginStaging: "staging",
		cacheclient.OriginWorker:  "worker",
		cacheclient.OriginSource:  "under_store",
	}
)

// The process.
var (
	sessionCount = prometheus.NewDesc("millrace_sessions", "Mounts that the process serves.", nil, nil)
	buildInfo    = prometheus.NewDesc("millrace_build_info",
		"Always 1; what the program was built from is in the labels.", []string{"version", "revision", "go_version"},
		nil)
)

// Requests of the kernel. "op" is a kind of request of the FUSE protocol.
var (
	opSeconds = prometheus.NewDesc("millrace_fuse_request_duration_seconds", "Time taken by requests of the kernel.",
		[]string{"mount", "op"}, nil)
	opErrors = prometheus.NewDesc("millrace_fuse_request_errors_total",
		"Requests of the kernel answered by an errno; a name that does not exist is one.", []string{"mount", "op"}, nil)
	errnoTotal = prometheus.NewDesc("millrace_errors_total",
		"Requests of the kernel answered by an errno, by its name; the rare ones are other.",
		[]string{"mount", "errno"}, nil)
	oldest = prometheus.NewDesc("millrace_oldest_request_seconds",
		"Age of the request that has been waiting longest.", []string{"mount"}, nil)
)

// collector reads all mounts whenever Prometheus asks.
type collector struct {
	mounts func() []Mount
	// build has the values of buildInfo's labels.
	build []string
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range metrics {
		ch <- m.desc
	}
	for _, d := range []*prometheus.Desc{
		tierQuota, tierUsed, tierUp, opSeconds, opErrors, errnoTotal, oldest,
		readBytes, sessionCount, buildInfo,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	mounts := c.mounts()
	ch <- prometheus.MustNewConstMetric(sessionCount, current, float64(len(mounts)))
	ch <- prometheus.MustNewConstMetric(buildInfo, current, 1, c.build...)
	for _, mount := range mounts {
		st := statusOfMount(mount)
		for _, m := range metrics {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(m.value(st)), st.Name)
		}
		collectTiers(ch, st)
		collectOps(ch, st)
		collectOutcomes(ch, st)
	}
}

func collectTiers(ch chan<- prometheus.Metric, st MountStatus) {
	for i, l := range st.Capacity.Levels {
		level, up := strconv.Itoa(i), float64(oneIf(l.Problem == ""))
		ch <- prometheus.MustNewConstMetric(tierQuota, current, float64(l.Quota), st.Name, level)
		ch <- prometheus.MustNewConstMetric(tierUsed, current, float64(l.Used), st.Name, level)
		ch <- prometheus.MustNewConstMetric(tierUp, current, up, st.Name, level)
	}
}

func collectOps(ch chan<- prometheus.Metric, st MountStatus) {
	for op, o := range st.Session.Ops {
		// Prometheus counts in each bucket what lies in the smaller ones too.
		buckets, sum := make(map[float64]uint64, len(fuse.LatencyBounds)), uint64(0)
		for i, bound := range fuse.LatencyBounds {
			if i < len(o.Buckets) {
				sum += uint64(o.Buckets[i])
			}
			buckets[bound] = sum
		}
		ch <- prometheus.MustNewConstHistogram(opSeconds, uint64(o.Count), o.Seconds, buckets, st.Name, op)
		ch <- prometheus.MustNewConstMetric(opErrors, total, float64(o.Errors), st.Name, op)
	}
	ch <- prometheus.MustNewConstMetric(oldest, current, st.Session.Oldest/1000, st.Name)
}

func collectOutcomes(ch chan<- prometheus.Metric, st MountStatus) {
	for origin, source := range sources {
		ch <- prometheus.MustNewConstMetric(readBytes, total, float64(st.Session.Served[string(origin)]), st.Name,
			source)
	}
	for errno, n := range st.Session.Errnos {
		ch <- prometheus.MustNewConstMetric(errnoTotal, total, float64(n), st.Name, errno)
	}
}

// build is what this program was built from: its version, its revision and the version of Go.
func build() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return []string{"", "", runtime.Version()}
	}
	revision := ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return []string{info.Main.Version, revision, info.GoVersion}
}

// metricsHandler answers /metrics: the mounts, the Go runtime and the process.
func metricsHandler(mounts func() []Mount) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{mounts, build()}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}
