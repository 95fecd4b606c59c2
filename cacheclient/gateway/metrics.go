package gateway

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics is what the gateway counts. No path is ever a label.
type metrics struct {
	registry *prometheus.Registry
	// requests are those of clients, by operation and status; a response that ended early has the status "cut", or
	// "gone" where the client ended it.
	requests *prometheus.CounterVec
	// asked are requests to the source, by operation and result, and leftOut what listings do not show, by what it is.
	asked, leftOut                    *prometheus.CounterVec
	received, sent, resumed, released prometheus.Counter
	serving, streams                  prometheus.Gauge
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_gateway_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_gateway_" + name, Help: help})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_gateway_requests_total",
			Help: "Requests of clients, by operation and status: cut is a response that ended early, gone one " +
				"that the client ended, as Alluxio does after each block.",
		}, []string{"operation", "status"}),
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_gateway_source_requests_total", Help: "Requests to the source, by operation and result.",
		}, []string{"operation", "result"}),
		leftOut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_gateway_left_out_total",
			Help: "What listings do not show, at each listing: a directory that cannot be listed, a file that " +
				"cannot be described, a name that no key can be.",
		}, []string{"what"}),
		received: counter("source_received_bytes_total", "Bytes of files received from the source."),
		sent:     counter("sent_bytes_total", "Bytes of files sent to clients."),
		resumed:  counter("resumed_streams_total", "Bodies of the source that broke off and were asked for again."),
		released: counter("released_streams_total",
			"Bodies of the source that were ended because the client took nothing."),
		serving: gauge("serving_requests", "Requests that are being served."),
		streams: gauge("source_streams", "Bodies of the source that are open."),
	}
	m.registry.MustRegister(
		m.requests, m.asked, m.leftOut, m.received, m.sent, m.resumed, m.released, m.serving, m.streams,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	for _, what := range []string{"directory", "file", "name"} {
		m.leftOut.WithLabelValues(what)
	}
	for _, operation := range []string{"list", "open", "stat"} {
		for _, result := range []string{"ok", "error"} {
			m.asked.WithLabelValues(operation, result)
		}
	}
	return m
}

func (m *metrics) sourceRequest(operation string, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.asked.WithLabelValues(operation, result).Inc()
}

func (m *metrics) request(operation string, status int, early string) {
	label := early
	if early == "" {
		label = strconv.Itoa(status)
	}
	m.requests.WithLabelValues(operation, label).Inc()
}
