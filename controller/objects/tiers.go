package objects

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// tier is one level of a worker's cache.
type tier struct {
	medium v1alpha1.MediumType
	// level is what it was read from.
	level *v1alpha1.Level
	// volatile says that the directories are the pod's own.
	emptyDir  bool
	dirs      []tierDir
	high, low string
}

// tierDir is one directory of a tier.
type tierDir struct {
	// path is the same on the node and in the container, so that a node's agent opens what a worker names.
	path  string
	quota int64
}

func (t *tier) quota() int64 {
	var sum int64
	for _, d := range t.dirs {
		sum += d.quota
	}
	return sum
}

// order is that of the media, the fastest first.
var order = map[v1alpha1.MediumType]int{v1alpha1.Memory: 0, v1alpha1.SSD: 1, v1alpha1.HDD: 2}

// resolveTiers reads the levels of a runtime, and sorts them: the fastest is the first.
func resolveTiers(n names, spec *v1alpha1.AlluxioRuntimeSpec) ([]tier, []Problem) {
	var tiers []tier
	var problems []Problem
	first := map[v1alpha1.MediumType]int{}
	for i := range spec.TieredStore.Levels {
		field := fmt.Sprintf("AlluxioRuntime.spec.tieredstore.levels[%d]", i)
		t, bad := resolveTier(n, &spec.TieredStore.Levels[i], field)
		problems = append(problems, bad...)
		if j, twice := first[t.medium]; twice {
			problems = append(problems, Problem{
				field + ".mediumtype",
				fmt.Sprintf("is %s, as levels[%d] is; accepted are MEM, SSD and HDD, each once", t.medium, j),
			})
		} else {
			first[t.medium] = i
		}
		tiers = append(tiers, t)
	}
	slices.SortStableFunc(tiers, func(a, b tier) int { return order[a.medium] - order[b.medium] })
	if len(tiers) == 0 && spec.Replicas > 0 {
		problems = append(problems, Problem{
			"AlluxioRuntime.spec.tieredstore.levels",
			"is empty; workers need at least one tier",
		})
	}
	return tiers, problems
}

func resolveTier(n names, level *v1alpha1.Level, field string) (tier, []Problem) {
	t := tier{
		medium: level.MediumType, level: level, emptyDir: level.VolumeType == v1alpha1.EmptyDir, high: level.High,
		low: level.Low,
	}
	where := level.Path
	if where == "" && (t.emptyDir || t.medium == v1alpha1.Memory) {
		where = "/dev/shm"
	}
	paths := strings.Split(where, ",")
	quotas, problems := quotasOf(level, len(paths), field)
	for i, p := range paths {
		p = strings.TrimSpace(p)
		switch {
		case !path.IsAbs(p):
			problems = append(problems, Problem{field + ".path", fmt.Sprintf("%q is not absolute", p)})
		case path.Clean(p) == "/" || path.Clean(p) != strings.TrimRight(p, "/"):
			problems = append(problems, Problem{
				field + ".path",
				fmt.Sprintf("%q is not a directory's plain path below /", p),
			})
		}
		if i < len(quotas) {
			t.dirs = append(t.dirs, tierDir{path: path.Join(p, n.namespace, n.name), quota: quotas[i]})
		}
	}
	if high, low, both := ratios(level); both && high < low {
		problems = append(problems, Problem{
			field + ".high",
			fmt.Sprintf("is %s, which is below low, %s", level.High, level.Low),
		})
	}
	return t, problems
}

// quotasOf is the size of each of n paths.
func quotasOf(level *v1alpha1.Level, n int, field string) ([]int64, []Problem) {
	switch {
	case level.QuotaList != "":
		parts := strings.Split(level.QuotaList, ",")
		if len(parts) != n {
			return nil, []Problem{{field + ".quotaList", fmt.Sprintf("has %d sizes for %d paths", len(parts), n)}}
		}
		quotas := make([]int64, n)
		for i, part := range parts {
			q, err := resource.ParseQuantity(strings.TrimSpace(part))
			if err != nil || q.Sign() <= 0 {
				return nil, []Problem{{
					field + ".quotaList",
					fmt.Sprintf("has %q, which is no size above 0 such as 2Gi", part),
				}}
			}
			quotas[i] = q.Value()
		}
		return quotas, nil
	case level.Quota != nil && level.Quota.Value() >= int64(n):
		quotas := make([]int64, n)
		for i := range quotas {
			quotas[i] = level.Quota.Value() / int64(n)
		}
		return quotas, nil
	case level.Quota != nil:
		return nil, []Problem{{field + ".quota", fmt.Sprintf("is %s; accepted is a size above 0 such as 2Gi",
			level.Quota)}}
	}
	return nil, []Problem{{field + ".quota", "is missing, and quotaList too; a tier needs one of them"}}
}

// ratios are the water marks of a level, if it has both.
func ratios(level *v1alpha1.Level) (high, low float64, both bool) {
	high, err1 := strconv.ParseFloat(level.High, 64)
	low, err2 := strconv.ParseFloat(level.Low, 64)
	return high, low, err1 == nil && err2 == nil
}

// smallestDir is the size of the smallest directory of all tiers, into which a block must fit.
func smallestDir(tiers []tier) int64 {
	smallest := int64(math.MaxInt64)
	for _, t := range tiers {
		for _, d := range t.dirs {
			smallest = min(smallest, d.quota)
		}
	}
	return smallest
}

// memoryTier is the size of the tiers that are memory.
func memoryTier(tiers []tier) int64 {
	var sum int64
	for i := range tiers {
		if tiers[i].medium == v1alpha1.Memory {
			sum += tiers[i].quota()
		}
	}
	return sum
}

// The bounds of the block size where no property gives one, in bytes.
const (
	largestBlock  = 4 << 30
	smallestBlock = 1 << 20
	blocksOfTier  = 4
)

// blockSize is a quarter of the smallest directory, so that an ordinary file is one block, which the kernel reads
// by itself, and a tier still has room for others.
func blockSize(tiers []tier) int64 {
	size := min(smallestDir(tiers)/blocksOfTier, largestBlock)
	return max(size>>20<<20, smallestBlock)
}
