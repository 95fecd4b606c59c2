package objects

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// TestReserve has workers with several tiers keep nothing free, unless the runtime has them exchange blocks, and tells
// what they keep then.
func TestReserve(t *testing.T) {
	const two = "MEM:/dev/shm:2Gi SSD:/mnt/a,/mnt/b:4Gi"
	on, off := alignProperty+"=true", alignProperty+"=false"
	for name, tc := range map[string]struct {
		levels          string
		all, worker     string
		reserved        int64
		has, lacks, bad string
	}{
		"one tier":             {levels: "SSD:/mnt/a,/mnt/b:4Gi", lacks: alignProperty},
		"one tier that aligns": {levels: "SSD:/mnt/a,/mnt/b:4Gi", all: on, has: on},
		"two tiers":            {levels: two, has: off, lacks: on},
		"they align":           {levels: two, all: on, reserved: 3 << 30, has: on, lacks: off},
		"as Java reads it":     {levels: two, all: alignProperty + "= True ", reserved: 3 << 30},
		"the workers' word":    {levels: two, all: on, worker: off, has: off},
		"another reserve":      {levels: two, all: on, worker: reserveProperty + "=64MB", reserved: 192 << 20},
		"a reserve alone":      {levels: two, worker: reserveProperty + "=1GB", has: off},
		"no reserve":           {levels: two, all: on + " " + reserveProperty + "=0", has: on},
		"more than a directory": {
			levels: "MEM:/dev/shm:1Gi SSD:/mnt/a:4Gi", all: on, bad: "properties[" + alignProperty,
		},
		"more than one, said": {
			levels: two, all: on, worker: reserveProperty + "=2GB", bad: "worker.properties[" + reserveProperty,
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := read(t, "testdata/walkthrough.yaml")
			in.Runtime = in.Runtime.DeepCopy()
			in.Runtime.Spec.TieredStore.Levels = levelsOf(t, tc.levels)
			in.Runtime.Spec.Properties, in.Runtime.Spec.Worker.Properties = pairs(tc.all), pairs(tc.worker)
			plan, problems := Desired(in)
			if tc.bad != "" {
				if len(problems) != 1 || !strings.Contains(problems[0].Field, tc.bad) {
					t.Errorf("%v", problems)
				}
				return
			}
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if plan.Reserved != tc.reserved {
				t.Errorf("%d bytes are reserved, want %d", plan.Reserved, tc.reserved)
			}
			text := string(render(t, plan))
			if !strings.Contains(text, tc.has) || tc.lacks != "" && strings.Contains(text, tc.lacks) {
				t.Errorf("it has %q, and not %q:\n%s", tc.has, tc.lacks, text)
			}
		})
	}
}

// levelsOf reads "MEDIUM:PATH:QUOTA" words.
func levelsOf(t *testing.T, words string) []v1alpha1.Level {
	t.Helper()
	var levels []v1alpha1.Level
	for word := range strings.FieldsSeq(words) {
		parts := strings.Split(word, ":")
		quota := resource.MustParse(parts[2])
		levels = append(levels, v1alpha1.Level{
			MediumType: v1alpha1.MediumType(parts[0]), Path: parts[1], Quota: &quota,
		})
	}
	return levels
}

// pairs reads "name=value", with a blank or more between two.
func pairs(text string) map[string]string {
	all := map[string]string{}
	for word := range strings.SplitSeq(text, " alluxio.") {
		name, value, given := strings.Cut(word, "=")
		if given {
			all["alluxio."+strings.TrimPrefix(name, "alluxio.")] = value
		}
	}
	return all
}
