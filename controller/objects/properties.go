package objects

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// Where things are in Alluxio's containers.
const (
	// configDir is one of the places where Alluxio looks for alluxio-site.properties by itself.
	configDir  = "/etc/alluxio"
	configFile = "alluxio-site.properties"
	journalDir = "/journal"
	hdfsDir    = "/hdfs-config"
)

// The keys of the ConfigMap, one for each kind of pod.
const (
	masterProperties = "master.properties"
	workerProperties = "worker.properties"
)

// configMap has Alluxio's configuration.
func (b *builder) configMap() Object {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: b.meta(b.names.config()),
		Data: map[string]string{
			masterProperties: b.masterProperties(),
			workerProperties: b.workerProperties(),
		},
	}
}

// common are the properties that masters and workers agree on.
func (b *builder) common() map[string]string {
	n := masterCount(b.spec)
	journals, rpcs, jobJournals := make([]string, n), make([]string, n), make([]string, n)
	for i := range n {
		host := b.names.master(i)
		journals[i] = address(host, b.ports.masterJournal)
		rpcs[i] = address(host, b.ports.masterRPC)
		jobJournals[i] = address(host, b.ports.jobMasterJournal)
	}
	p := map[string]string{
		"alluxio.master.mount.table.root.ufs":       rootDir,
		"alluxio.master.rpc.addresses":              strings.Join(rpcs, ","),
		"alluxio.master.journal.type":               "EMBEDDED",
		"alluxio.master.embedded.journal.addresses": strings.Join(journals, ","),
		// The mountpoint itself: a master that is not told to format its journal wants the directory to be there.
		"alluxio.master.journal.folder":                     journalDir,
		"alluxio.master.metastore.dir":                      journalDir + "/metastore",
		"alluxio.security.authorization.permission.enabled": "false",
		// No client has to authenticate again while its connection lives.
		"alluxio.security.stale.channel.purge.interval": "365d",
		// The leader would call out to the Internet.
		"alluxio.master.update.check.enabled": "false",
		// A file that Alluxio loads never expires out of the source.
		"alluxio.user.file.create.ttl.action": "FREE",
		"alluxio.user.file.replication.max":   strconv.Itoa(int(max(b.spec.Data.Replicas, 1))),
		blockSizeProperty:                     "64MB",
		// An object has no permissions, and Alluxio's 0700 would hide it from every pod that is not root.
		"alluxio.underfs.s3.default.mode": "0755",
	}
	if n == 1 {
		// Workers of a single master do not look at the list.
		p["alluxio.master.hostname"] = b.names.master(0)
	}
	if len(b.tiers) > 0 {
		p[blockSizeProperty] = strconv.FormatInt(blockSize(b.tiers), 10)
	}
	for _, name := range portNames {
		if !strings.HasPrefix(name.field, "job") || b.jobs() {
			p[name.property] = strconv.Itoa(int(*name.into(&b.ports)))
		}
	}
	if b.jobs() {
		p["alluxio.job.master.embedded.journal.addresses"] = strings.Join(jobJournals, ",")
	}
	if as := b.spec.RunAs; as != nil && as.UserName != "" {
		// The image has no name for the number.
		p["alluxio.security.login.username"] = as.UserName
	}
	if b.spec.HadoopConfig != "" {
		p["alluxio.underfs.hdfs.configuration"] = hdfsDir + "/hdfs-site.xml:" + hdfsDir + "/core-site.xml"
	}
	return p
}

func (b *builder) masterProperties() string {
	return writeProperties(b.common(), b.elections(), settable(b.spec.Properties), settable(b.spec.Master.Properties),
		settable(b.spec.JobMaster.Properties))
}

// The time without a word from the leader after which a master stands for election is drawn from between these.
const (
	electionMin = "alluxio.master.embedded.journal.election.timeout.min"
	electionMax = "alluxio.master.embedded.journal.election.timeout.max"
)

// elections has a leader that is gone be followed by another in less than half of the 20 s and more that Alluxio's 10
// to 20 s take. Below some seconds, masters on busy machines take each other for dead. A user that sets one of the two
// means Alluxio's other one.
func (b *builder) elections() map[string]string {
	if masterCount(b.spec) == 1 {
		return nil
	}
	for _, name := range []string{electionMin, electionMax} {
		if b.spec.Properties[name] != "" || b.spec.Master.Properties[name] != "" ||
			b.spec.JobMaster.Properties[name] != "" {
			return nil
		}
	}
	return map[string]string{electionMin: "4s", electionMax: "8s"}
}

func (b *builder) workerProperties() string {
	p := map[string]string{
		// A worker whose leader dies while it registers waits twice the first of these for the rest of it, though the stream
		// has broken (CW/block/RegisterStreamer.java): by default 20 minutes, in which no master knows of its blocks. A
		// million blocks are one message, which the master answers within seconds.
		"alluxio.worker.register.stream.response.timeout": "15s",
		"alluxio.worker.register.stream.complete.timeout": "30s",
		"alluxio.worker.register.stream.deadline":         "3min",
	}
	return writeProperties(
		b.common(), p, b.workerStore(), withoutAligning(b.tiers), settable(b.spec.Properties),
		settable(b.spec.Worker.Properties), settable(b.spec.JobWorker.Properties),
	)
}

// workerStore describes the tiers.
func (b *builder) workerStore() map[string]string {
	p := map[string]string{"alluxio.worker.tieredstore.levels": strconv.Itoa(len(b.tiers))}
	var ahead int64
	for i := range b.tiers {
		t := &b.tiers[i]
		level := fmt.Sprintf("alluxio.worker.tieredstore.level%d.", i)
		dirs, quotas, media := make([]string, len(t.dirs)), make([]string, len(t.dirs)), make([]string, len(t.dirs))
		for j, d := range t.dirs {
			dirs[j], quotas[j], media[j] = d.path, strconv.FormatInt(d.quota, 10), string(t.medium)
		}
		p[level+"alias"] = string(t.medium)
		p[level+"dirs.path"] = strings.Join(dirs, ",")
		p[level+"dirs.quota"] = strings.Join(quotas, ",")
		p[level+"dirs.mediumtype"] = strings.Join(media, ",")
		if t.high != "" {
			p[level+"watermark.high.ratio"] = t.high
		}
		if t.low != "" {
			p[level+"watermark.low.ratio"] = t.low
		}
		if high, low, both := ratios(&v1alpha1.Level{High: t.high, Low: t.low}); both && ahead == 0 {
			ahead = int64((high - low) * float64(t.quota()))
		}
	}
	if size := memoryTier(b.tiers); size > 0 {
		p["alluxio.worker.ramdisk.size"] = strconv.FormatInt(size, 10)
	}
	if ahead > 0 {
		// Alluxio 2.9 has no watermarks of its own any more: this is how much room it makes at a time.
		p["alluxio.worker.tieredstore.free.ahead.bytes"] = strconv.FormatInt(ahead, 10)
	}
	return p
}

// writeProperties writes a Java properties file; of two values for a name, the one of the later map is written.
func writeProperties(layers ...map[string]string) string {
	all := map[string]string{}
	for _, layer := range layers {
		maps.Copy(all, layer)
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&text, "%s=%s\n", escapeProperty(name, true), escapeProperty(all[name], false))
	}
	return text.String()
}

// escapeProperty writes a name or a value as java.util.Properties reads it.
func escapeProperty(s string, name bool) string {
	var out strings.Builder
	for i, r := range s {
		switch {
		case r == '\\', name && strings.ContainsRune("=:# !", r), i == 0 && strings.ContainsRune(" #!", r):
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

func address(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
