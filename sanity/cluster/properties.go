package cluster

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// siteProperties are what all servers and clients of the cluster agree on.
func (c *Cluster) siteProperties() map[string]string {
	journals, rpcs := make([]string, len(c.masters)), make([]string, len(c.masters))
	for i, m := range c.masters {
		journals[i], rpcs[i] = m.at(m.raft), m.at(m.rpc)
	}
	p := map[string]string{
		"alluxio.master.mount.table.root.ufs":                  c.ufs,
		"alluxio.master.rpc.addresses":                         strings.Join(rpcs, ","),
		"alluxio.master.journal.type":                          "EMBEDDED",
		"alluxio.master.embedded.journal.addresses":            strings.Join(journals, ","),
		"alluxio.master.embedded.journal.election.timeout.min": milliseconds(c.cfg.ElectionMin),
		"alluxio.master.embedded.journal.election.timeout.max": milliseconds(c.cfg.ElectionMax),
		"alluxio.master.metastore":                             "HEAP",
		"alluxio.user.block.size.bytes.default":                strconv.FormatInt(c.cfg.BlockSize, 10),
		"alluxio.security.authorization.permission.enabled":    "false",
		"alluxio.security.stale.channel.purge.interval":        "365d",
		"alluxio.grpc.reflection.enabled":                      "true",
		"alluxio.master.worker.connect.wait.time":              "0sec",
		"alluxio.master.worker.timeout":                        "5sec",
		"alluxio.master.lost.worker.detection.interval":        "500ms",
		"alluxio.master.worker.info.cache.refresh.time":        "100ms",
		"alluxio.worker.block.heartbeat.interval":              "200ms",
		"alluxio.master.rpc.executor.core.pool.size":           "32",
		"alluxio.worker.rpc.executor.core.pool.size":           "16",
		"alluxio.network.host.resolution.timeout":              "250ms",
		"alluxio.web.ui.enabled":                               "false",
		"alluxio.user.metrics.collection.enabled":              "false",
		// The leader would call out, and look for the metadata service of a cloud.
		"alluxio.master.update.check.enabled": "false",
	}
	if len(c.masters) == 1 {
		// Workers of a single master do not look at the list.
		p["alluxio.master.hostname"] = c.masters[0].bind
		p["alluxio.master.rpc.port"] = strconv.Itoa(c.masters[0].rpc)
	}
	return p
}

// impatience has servers give up a leader that hangs after 15 s and not 60. The first is the least that gRPC allows.
var impatience = map[string]string{
	"alluxio.user.network.rpc.keepalive.time":    "10s",
	"alluxio.user.network.rpc.keepalive.timeout": "5s",
}

// ownProperties are those that make one server different from the others.
func (s *Server) ownProperties() map[string]string {
	prefix := "alluxio." + string(s.Role) + "."
	p := map[string]string{
		prefix + "hostname":                   s.Host,
		prefix + "bind.host":                  s.bind,
		prefix + "rpc.port":                   strconv.Itoa(s.rpc),
		prefix + "web.hostname":               s.bind,
		prefix + "web.bind.host":              s.bind,
		prefix + "web.port":                   strconv.Itoa(s.web),
		"alluxio.locality.node":               s.Host,
		"alluxio.conf.dynamic.update.enabled": "false",
	}
	maps.Copy(p, impatience)
	if s.Role == Master {
		// Masters and workers find each other past the proxies.
		p["alluxio.master.hostname"] = s.bind
		p["alluxio.master.embedded.journal.port"] = strconv.Itoa(s.raft)
		p["alluxio.master.journal.folder"] = s.journalDir()
		p["alluxio.master.metastore.dir"] = s.dir + "/metastore"
		return p
	}
	// How often it looks for a leader, and how long for an answer of one that hangs.
	p["alluxio.user.rpc.retry.base.sleep"] = "50ms"
	p["alluxio.user.rpc.retry.max.sleep"] = "200ms"
	p["alluxio.worker.master.periodical.rpc.timeout"] = "5s"
	// A worker whose leader dies while it registers waits twice the first of these for the rest of it, by default 20
	// minutes.
	p["alluxio.worker.register.stream.response.timeout"] = "5s"
	p["alluxio.worker.register.stream.complete.timeout"] = "5s"
	p["alluxio.worker.register.stream.deadline"] = "15s"
	p["alluxio.user.master.polling.timeout"] = "2s"
	p["alluxio.user.master.polling.concurrent"] = "true"
	p["alluxio.network.connection.auth.timeout"] = "5s"
	p["alluxio.network.connection.shutdown.timeout"] = "1s"
	p["alluxio.network.connection.shutdown.graceful.timeout"] = "1s"
	quota := strconv.FormatInt(s.cluster.cfg.TierQuota, 10)
	p["alluxio.worker.ramdisk.size"] = quota
	p["alluxio.worker.tieredstore.level0.alias"] = "MEM"
	p["alluxio.worker.tieredstore.level0.dirs.path"] = s.TierDir
	p["alluxio.worker.tieredstore.level0.dirs.quota"] = quota
	return p
}

// writeProperties writes a Java properties file; of two values for a name, the one of the later map is written.
func writeProperties(path string, layers ...map[string]string) error {
	all := map[string]string{}
	for _, layer := range layers {
		maps.Copy(all, layer)
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&text, "%s=%s\n", escapeProperty(name), escapeProperty(all[name]))
	}
	return os.WriteFile(path, []byte(text.String()), 0o600)
}

// escapeProperty writes a name or value as java.util.Properties reads it.
func escapeProperty(s string) string {
	var out strings.Builder
	for _, r := range s {
		switch {
		case strings.ContainsRune(`\=:#! `, r):
			out.WriteRune('\\')
			out.WriteRune(r)
		case r < ' ' || r > '~':
			for _, unit := range utf16.AppendRune(nil, r) {
				fmt.Fprintf(&out, `\u%04x`, unit)
			}
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) + "ms" }
