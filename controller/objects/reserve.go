package objects

import (
	"fmt"
	"strings"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// What Alluxio's workers with several tiers keep free in each directory, to exchange blocks between tiers: it counts as
// used, and no block is cached there (CW/block/meta/DefaultStorageDir.java).
const (
	alignProperty   = "alluxio.worker.management.tier.align.enabled"
	reserveProperty = "alluxio.worker.management.tier.align.reserved.bytes"
	// standardReserve is Alluxio's, in bytes.
	standardReserve = 1 << 30
)

// withoutAligning has workers exchange no blocks between their tiers. D-268 says why.
func withoutAligning(tiers []tier) map[string]string {
	if len(tiers) < 2 {
		return nil
	}
	return map[string]string{alignProperty: "false"}
}

// ofWorkers is what a runtime says of a property of its workers, and where: the later place counts.
func ofWorkers(spec *v1alpha1.AlluxioRuntimeSpec, name string) (value, field string) {
	for _, part := range []struct {
		field      string
		properties map[string]string
	}{
		{"properties", spec.Properties},
		{"worker.properties", spec.Worker.Properties},
		{"jobWorker.properties", spec.JobWorker.Properties},
	} {
		if text, given := part.properties[name]; given {
			value, field = strings.TrimSpace(text), fmt.Sprintf("AlluxioRuntime.spec.%s[%s]", part.field, name)
		}
	}
	return value, field
}

// reserve is what a worker keeps free in each directory of its tiers, in bytes, and which field of the runtime has it
// do so.
func reserve(spec *v1alpha1.AlluxioRuntimeSpec, tiers []tier) (size int64, field string) {
	aligns, field := ofWorkers(spec, alignProperty)
	if len(tiers) < 2 || !strings.EqualFold(aligns, "true") {
		return 0, ""
	}
	text, where := ofWorkers(spec, reserveProperty)
	if where == "" {
		return standardReserve, field
	}
	// What Alluxio cannot read ends its workers, and their pods tell why.
	size, _ = parseSize(text)
	return size, where
}

// setAside is what a worker keeps free in all of its directories, in bytes.
func setAside(spec *v1alpha1.AlluxioRuntimeSpec, tiers []tier) int64 {
	size, _ := reserve(spec, tiers)
	var dirs int64
	for i := range tiers {
		dirs += int64(len(tiers[i].dirs))
	}
	return size * dirs
}

// checkReserve looks for a reserve that leaves a directory no room for a block.
func checkReserve(spec *v1alpha1.AlluxioRuntimeSpec, tiers []tier) []Problem {
	size, field := reserve(spec, tiers)
	if size == 0 || size < smallestDir(tiers) {
		return nil
	}
	return []Problem{{field, fmt.Sprintf("has Alluxio keep %d bytes free in each directory of the tiers, and the "+
		"smallest has %d; accepted is %s below that", size, smallestDir(tiers), reserveProperty)}}
}
