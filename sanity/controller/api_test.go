package controller_test

import (
	"os"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestAPIRefuses changes the walkthrough's specs in one place, and looks for the refusal that names the field.
func TestAPIRefuses(t *testing.T) {
	t.Parallel()
	_, c := server(t)
	raw, err := os.ReadFile("../../controller/objects/testdata/walkthrough.yaml")
	must(t, err)
	cases := map[string]struct{ old, new, names, why string }{
		"no masters": {
			"    replicas: 3\n", "    replicas: 0\n", "spec.master.replicas",
			"greater than or equal to 1",
		},
		"negative quota": {"quota: 2Gi", "quota: -1", "spec.tieredstore.levels[0].quota", "above 0"},
		"no quota":       {"        quota: 2Gi\n", "", "spec.tieredstore.levels[0].quota", "needs a quota"},
		"high below low": {
			`high: "0.95"`, `high: "0.5"`, "spec.tieredstore.levels[0].high",
			"must not be below low",
		},
		"high is no number":  {`high: "0.95"`, `high: "much"`, "spec.tieredstore.levels[0].high", "should match"},
		"relative tier path": {"path: /dev/shm", "path: dev/shm", "spec.tieredstore.levels[0].path", "should match"},
		"medium":             {"mediumtype: MEM", "mediumtype: TAPE", "spec.tieredstore.levels[0].mediumtype", "TAPE"},
		"negative workers":   {"replicas: 2\n", "replicas: -2\n", "spec.replicas", "greater than or equal to 0"},
		"two mounts one path": {
			"      name: hbase\n",
			"      name: hbase\n    - {mountPoint: 'https://other.example.org/', path: /hbase}\n", "spec.mounts",
			"same path",
		},
		"mount without host": {
			"https://mirror.example.org/apache/hbase/stable/", "https:///apache",
			"spec.mounts[0].mountPoint", "no host",
		},
		"relative mount path": {"      name: hbase\n", "      path: hbase\n", "spec.mounts[0].path", "absolute"},
		"name begins with 1":  {"  name: hbase\nspec", "  name: 1hbase\nspec", "metadata.name", "DNS label"},
		"name too long": {
			"  name: hbase\nspec", "  name: " + strings.Repeat("a", 46) + "\nspec", "metadata.name",
			"45",
		},
		"access mode of run": {
			"spec:\n  mounts", "spec:\n  placement: Anywhere\n  mounts", "spec.placement",
			"Anywhere",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(string(raw), tc.old) {
				t.Fatalf("the walkthrough has no %q", tc.old)
			}
			ns := namespace(t, c)
			var refusals []string
			for _, o := range parse(t, strings.Replace(string(raw), tc.old, tc.new, 1)) {
				o.SetNamespace(ns)
				if err := c.Create(t.Context(), o); err != nil {
					if !apierrors.IsInvalid(err) {
						t.Errorf("refused as %s: %v", apierrors.ReasonForError(err), err)
					}
					refusals = append(refusals, err.Error())
				}
			}
			if text := strings.Join(refusals, "\n"); len(refusals) != 1 || !strings.Contains(text, tc.names) ||
				!strings.Contains(text, tc.why) {
				t.Errorf("got the refusals %q, want one that names %s and says %q", refusals, tc.names, tc.why)
			}
		})
	}
}

// TestAPIRefusesChanges changes what cannot change.
func TestAPIRefusesChanges(t *testing.T) {
	_, c := server(t)
	cases := map[string]struct{ kind, patch, names string }{
		"masters": {"AlluxioRuntime", `{"spec":{"master":{"replicas":5}}}`, "spec.master.replicas"},
		"journal": {
			"AlluxioRuntime", `{"spec":{"master":{"journal":{"storageClassName":"fast"}}}}`,
			"spec.master.journal",
		},
		"ports":         {"AlluxioRuntime", `{"spec":{"master":{"ports":{"rpc":1234}}}}`, "spec.master.ports"},
		"node selector": {"AlluxioRuntime", `{"spec":{"fuse":{"nodeSelector":{"a":"b"}}}}`, "spec.fuse.nodeSelector"},
		"access modes":  {"Dataset", `{"spec":{"accessModes":["ReadOnlyMany"]}}`, "spec.accessModes"},
		"root mount": {
			"Dataset", `{"spec":{"mounts":[{"mountPoint":"https://other.example.org/","path":"/"}]}}`,
			"spec.mounts",
		},
		"owner": {"Dataset", `{"spec":{"owner":{"uid":1,"gid":2}}}`, "spec.owner"},
	}
	ns := namespace(t, c)
	made := create(t, c, ns, "../../controller/objects/testdata/walkthrough.yaml")
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, o := range made {
				if o.GetKind() != tc.kind {
					continue
				}
				err := c.Patch(t.Context(), o.DeepCopy(),
					client.RawPatch("application/merge-patch+json", []byte(tc.patch)))
				if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tc.names) {
					t.Errorf("got %v, want a refusal that names %s", err, tc.names)
				}
			}
		})
	}
	for _, o := range made {
		if o.GetKind() == "AlluxioRuntime" {
			must(t, c.Patch(t.Context(), o, client.RawPatch("application/merge-patch+json",
				[]byte(`{"spec":{"replicas":3,"worker":{"env":{"A":"b"}}}}`))))
		}
	}
}

// TestKubectlShows compares what kubectl shows of the API with what Fluid's users know.
func TestKubectlShows(t *testing.T) {
	s, c := server(t)
	ns := namespace(t, c)
	create(t, c, ns, "../../controller/objects/testdata/walkthrough.yaml")
	for _, tc := range []struct{ args, want string }{
		{"get dataset", "NAME UFS TOTAL SIZE CACHED CACHE CAPACITY CACHED PERCENTAGE PHASE AGE"},
		{
			"get dataset -o wide",
			"NAME UFS TOTAL SIZE CACHED CACHE CAPACITY CACHED PERCENTAGE PHASE HCFS URL TOTAL FILES CACHE HIT RATIO " +
				"AGE",
		},
		{"get alluxio", "NAME MASTER PHASE WORKER PHASE FUSE PHASE AGE"},
		{
			"get alluxioruntime -o wide",
			"NAME READY MASTERS DESIRED MASTERS MASTER PHASE READY WORKERS DESIRED WORKERS WORKER PHASE READY FUSES " +
				"DESIRED FUSES FUSE PHASE API GATEWAY AGE",
		},
		{"get fluid", "NAME"},
		{"explain alluxioruntime.spec.tieredstore.levels.quota", "Size of the tier, shared equally by its paths."},
		{"scale alluxioruntime hbase --replicas=1", "alluxioruntime.data.fluid.io/hbase scaled"},
	} {
		out, err := s.Kubectl(t.Context(), append(strings.Fields(tc.args), "-n", ns)...)
		if err != nil {
			t.Errorf("kubectl %s: %v: %s", tc.args, err, out)
		}
		if !strings.Contains(strings.Join(strings.Fields(out), " "), tc.want) {
			t.Errorf("kubectl %s shows\n%s\nwant %s", tc.args, out, tc.want)
		}
	}
}
