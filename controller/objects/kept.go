package objects

import (
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// keptProperties are those that say where masters, journals and tiers are, and what serves them. The pods are made for
// millrace's values: with another type of journal, three masters know nothing of each other. What a runtime says of
// them has no effect, and is told as such.
var keptProperties = map[string]bool{
	"alluxio.master.hostname": true, "alluxio.master.rpc.addresses": true, "alluxio.master.mount.table.root.ufs": true,
	"alluxio.master.journal.type": true, "alluxio.master.journal.folder": true,
	"alluxio.master.embedded.journal.addresses": true,
	"alluxio.job.master.hostname":               true, "alluxio.job.master.rpc.addresses": true,
	"alluxio.job.master.embedded.journal.addresses": true,
	"alluxio.worker.hostname":                       true, "alluxio.worker.container.hostname": true,
	"alluxio.worker.ramdisk.size": true, "alluxio.worker.tieredstore.levels": true,
}

// isKept reports whether a property is millrace's to set.
func isKept(name string) bool {
	return keptProperties[name] || strings.HasPrefix(name, "alluxio.worker.tieredstore.level") &&
		strings.Contains(name, ".dirs.") ||
		strings.HasPrefix(name, "alluxio.worker.tieredstore.level") && strings.HasSuffix(name, ".alias")
}

// settable is what a user's properties say of those that are the user's to set.
func settable(properties map[string]string) map[string]string {
	all := maps.Clone(properties)
	maps.DeleteFunc(all, func(name, _ string) bool { return isKept(name) })
	return all
}

// keptAgainst are the paths of the properties that say something else than what is kept.
func (b *builder) keptAgainst() []string {
	ours := b.common()
	maps.Copy(ours, b.workerStore())
	var found []string
	for field, properties := range map[string]map[string]string{
		"properties": b.spec.Properties, "master.properties": b.spec.Master.Properties,
		"worker.properties":    b.spec.Worker.Properties,
		"jobMaster.properties": b.spec.JobMaster.Properties, "jobWorker.properties": b.spec.JobWorker.Properties,
	} {
		for name, value := range properties {
			if isKept(name) && strings.TrimSpace(value) != ours[name] {
				found = append(found, fmt.Sprintf("AlluxioRuntime.spec.%s[%s]", field, name))
			}
		}
	}
	return slices.Sorted(slices.Values(found))
}

const blockSizeProperty = "alluxio.user.block.size.bytes.default"

// checkBlockSize looks for a size of blocks of which none would ever fit into a tier.
func checkBlockSize(spec *v1alpha1.AlluxioRuntimeSpec, tiers []tier) []Problem {
	var problems []Problem
	for field, properties := range map[string]map[string]string{
		"properties": spec.Properties, "master.properties": spec.Master.Properties,
		"worker.properties": spec.Worker.Properties,
	} {
		text, given := properties[blockSizeProperty]
		if !given {
			continue
		}
		where := fmt.Sprintf("AlluxioRuntime.spec.%s[%s]", field, blockSizeProperty)
		size, ok := parseSize(text)
		switch {
		case !ok || size < 1:
			problems = append(problems,
				Problem{
					where,
					fmt.Sprintf("is %q; accepted is a number of bytes above 0, or one with a unit such as 64MB", text),
				})
		case len(tiers) > 0 && size > smallestDir(tiers):
			problems = append(problems,
				Problem{
					where,
					fmt.Sprintf("is %s, which does not fit into the smallest directory of the tiers, %d bytes", text,
						smallestDir(tiers)),
				})
		}
	}
	return problems
}

// sizeUnits are those of Alluxio's sizes (CC/util/FormatUtils.java, parseSpaceSize), as powers of two.
var sizeUnits = map[string]uint{
	"": 0, "b": 0, "k": 10, "kb": 10, "m": 20, "mb": 20, "g": 30, "gb": 30, "t": 40, "tb": 40, "p": 50, "pb": 50,
}

// plainNumber is what the number of a size looks like.
var plainNumber = regexp.MustCompile(`^[0-9]{1,20}(\.[0-9]{1,20})?$`)

// parseSize reads a size as Alluxio does: a decimal number, and a unit in letters of either case.
func parseSize(text string) (int64, bool) {
	text = strings.ToLower(strings.TrimSpace(text))
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	shift, known := sizeUnits[text[len(number):]]
	number = strings.TrimSpace(number)
	if !known || !plainNumber.MatchString(number) {
		return 0, false
	}
	value, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, false
	}
	value.Mul(value, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), shift)))
	whole := new(big.Int).Quo(value.Num(), value.Denom())
	return whole.Int64(), whole.IsInt64()
}
