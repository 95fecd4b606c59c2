package objects

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// TestParseSize reads sizes as Alluxio's FormatUtils does.
func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "268435456": 256 << 20, "256MB": 256 << 20, "256mb": 256 << 20, "256M": 256 << 20,
		" 64 KB ": 64 << 10, "1.5GB": 3 << 29,
		"2g": 2 << 30, "1tb": 1 << 40, "1PB": 1 << 50, "10b": 10, "0.5k": 512,
	} {
		if got, ok := parseSize(text); !ok || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", "MB", "-1", "1e9", "1MiB", "1 2", "1/2", "0x10", "9000000000000PB",
		"99999999999999999999999", ".5k", "1_0", "١",
	} {
		if got, ok := parseSize(text); ok {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

// TestKeptProperties has what the pods are made for stay as it is, whatever is said of it and for which part, and be
// told; what says the same is not told.
func TestKeptProperties(t *testing.T) {
	in := read(t, "testdata/walkthrough.yaml")
	in.Runtime = in.Runtime.DeepCopy()
	spec := &in.Runtime.Spec
	spec.Properties = map[string]string{
		"alluxio.master.journal.type": "UFS", "alluxio.master.journal.folder": "/journal",
		"alluxio.master.rpc.addresses":             "elsewhere:1",
		"alluxio.user.file.metadata.sync.interval": "1h",
	}
	spec.Master.Properties = map[string]string{"alluxio.master.mount.table.root.ufs": "/tmp"}
	spec.Worker.Properties = map[string]string{
		"alluxio.worker.tieredstore.level0.dirs.path":            "/tmp",
		"alluxio.worker.tieredstore.level0.watermark.high.ratio": "0.8",
	}
	plan, problems := Desired(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := []string{
		"AlluxioRuntime.spec.master.properties[alluxio.master.mount.table.root.ufs]",
		"AlluxioRuntime.spec.properties[alluxio.master.journal.type]",
		"AlluxioRuntime.spec.properties[alluxio.master.rpc.addresses]",
		"AlluxioRuntime.spec.worker.properties[alluxio.worker.tieredstore.level0.dirs.path]",
	}
	var told []string
	for _, field := range plan.Unsupported {
		if strings.Contains(field, "properties[") {
			told = append(told, field)
		}
	}
	if !slices.Equal(told, want) {
		t.Errorf("told are %q, want %q", told, want)
	}
	text := string(render(t, plan))
	for line, is := range map[string]bool{
		"alluxio.master.journal.type=EMBEDDED": true, "alluxio.master.journal.type=UFS": false, "elsewhere": false,
		"alluxio.user.file.metadata.sync.interval=1h":                true,
		"alluxio.worker.tieredstore.level0.watermark.high.ratio=0.8": true,
		"alluxio.worker.tieredstore.level0.dirs.path=/tmp":           false,
	} {
		if strings.Contains(text, line) != is {
			t.Errorf("%q is in the configuration: %v", line, !is)
		}
	}
}

// TestTiersInAnyOrder has levels sorted by their medium, each with the volume of its own, paths without their blanks,
// and one watermark for both.
func TestTiersInAnyOrder(t *testing.T) {
	in := read(t, "testdata/everything.yaml")
	in.Runtime = in.Runtime.DeepCopy()
	levels := &in.Runtime.Spec.TieredStore.Levels
	sorted, problems := Desired(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	slices.Reverse(*levels)
	reversed, problems := Desired(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if a, b := render(t, sorted), render(t, reversed); string(a) != string(b) {
		t.Errorf("the order of the levels counts:\n%s\n%s", a, b)
	}
	(*levels)[0].Path, (*levels)[0].High, (*levels)[0].Low = "/mnt/a, /mnt/b", "0.9", "0.9"
	plan, problems := Desired(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if text := string(render(t, plan)); !strings.Contains(text,
		"dirs.path=/mnt/a/default/everything,/mnt/b/default/everything\n") {
		t.Error("the paths are not /mnt/a and /mnt/b")
	}
	(*levels)[1].MediumType = (*levels)[0].MediumType
	if _, problems = Desired(in); len(problems) != 1 || !strings.Contains(problems[0].Why, "each once") {
		t.Errorf("two levels of one medium: %v", problems)
	}
}

// TestOneTermKeepsWorkersApart has all pods that keep a worker off a node match the one term that it has, as the
// scheduler looks at a waiting pod again when such a pod is gone.
func TestOneTermKeepsWorkersApart(t *testing.T) {
	for _, mode := range []v1alpha1.PlacementMode{v1alpha1.Exclusive, v1alpha1.Shared} {
		in := read(t, "testdata/walkthrough.yaml")
		in.Dataset = in.Dataset.DeepCopy()
		in.Dataset.Spec.Placement = mode
		b := &builder{Input: in, spec: &in.Runtime.Spec, names: names{"ns", "one"}}
		terms := b.workerAffinity().PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		if len(terms) != 1 || terms[0].NamespaceSelector == nil || len(terms[0].LabelSelector.MatchExpressions) != 1 {
			t.Fatalf("%s: %+v", mode, terms)
		}
		term := terms[0].LabelSelector.MatchExpressions[0]
		other := &builder{Input: in, spec: b.spec, names: names{"ns", "two"}}
		for what, tc := range map[string]struct {
			labels map[string]string
			apart  bool
		}{
			"its own":                 {map[string]string{occupiesLabel: b.occupies()}, true},
			"its own sweeper":         {map[string]string{occupiesLabel: cacheNodeValue(b.names)}, true},
			"one that wants the node": {map[string]string{occupiesLabel: occupiesNode}, true},
			"one that shares it": {
				map[string]string{occupiesLabel: cacheNodeValue(other.names)},
				mode == v1alpha1.Exclusive,
			},
			"any other pod": {map[string]string{"app": "alluxio"}, false},
		} {
			value, has := tc.labels[occupiesLabel]
			matches := has && (term.Operator == "Exists" || slices.Contains(term.Values, value))
			if term.Key != occupiesLabel || matches != tc.apart {
				t.Errorf("%s: %s with %v: apart is %v", mode, what, maps.Clone(tc.labels), matches)
			}
		}
	}
}
