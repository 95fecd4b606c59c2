package objects

import (
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// TestRefused changes the walkthrough's specs in one place, and looks for the problem that names it.
func TestRefused(t *testing.T) {
	cases := map[string]struct{ old, new, field, why string }{
		"scheme": {"https://mirror", "gopher://mirror", "Dataset.spec.mounts[0].mountPoint", "gopher"},
		"other Dataset": {
			"https://mirror.example.org/apache/hbase/stable/", "dataset://other/name",
			"Dataset.spec.mounts[0].mountPoint", "dataset",
		},
		"password in address": {
			"https://mirror", "https://me:secret@mirror", "Dataset.spec.mounts[0].mountPoint",
			"encryptOptions",
		},
		"path goes up": {"      name: hbase\n", "      path: /a/../b\n", "Dataset.spec.mounts[0].path", ".."},
		"same path twice": {
			"      name: hbase\n",
			"      name: hbase\n    - {mountPoint: 'https://other.example.org/', path: /hbase/}\n",
			"Dataset.spec.mounts[1]", "/hbase",
		},
		"missing secret": {
			"      name: hbase\n",
			"      name: hbase\n      encryptOptions: [{name: pass, valueFrom: {secretKeyRef: {name: nowhere, key: " +
				"k}}}]\n", "Dataset.spec.mounts[0].encryptOptions[0]", `"nowhere"`,
		},
		"gateway's option": {
			"      name: hbase\n", "      name: hbase\n      options: {fs.s3.what: a}\n",
			"Dataset.spec.mounts[0]", `"fs.s3.what"`,
		},
		"option of two lines": {
			"      name: hbase\n", "      name: hbase\n      options: {headers: \"a,b\\nc\"}\n",
			"Dataset.spec.mounts[0]", "line break",
		},
		"shared secret too": {
			"      name: hbase\n",
			"      name: hbase\n      options: {pass: a}\n  sharedEncryptOptions: [{name: pass, valueFrom: " +
				"{secretKeyRef: {name: nowhere, key: k}}}]\n", "Dataset.spec.sharedEncryptOptions",
			"mounts[0].options has also",
		},
		"shared and secret": {
			"      name: hbase\n",
			"      name: hbase\n      encryptOptions: [{name: pass, valueFrom: {secretKeyRef: {name: nowhere, key: " +
				"k}}}]\n  sharedOptions: {pass: a}\n", "Dataset.spec.mounts[0].encryptOptions",
			"sharedOptions has also",
		},
		"option said twice": {
			"      name: hbase\n",
			"      name: hbase\n      options: {pass: a}\n      encryptOptions: [{name: pass, valueFrom: " +
				"{secretKeyRef: {name: nowhere, key: k}}}]\n", "Dataset.spec.mounts[0].encryptOptions", "pass",
		},
		"quota": {"quota: 2Gi", "quota: -1", "AlluxioRuntime.spec.tieredstore.levels[0].quota", "-1"},
		"no quota": {
			"        quota: 2Gi\n", "", "AlluxioRuntime.spec.tieredstore.levels[0].quota",
			"missing",
		},
		"quota list": {
			"quota: 2Gi", "quotaList: 1Gi,1Gi",
			"AlluxioRuntime.spec.tieredstore.levels[0].quotaList", "2 sizes for 1 paths",
		},
		"high below low": {`high: "0.95"`, `high: "0.5"`, "AlluxioRuntime.spec.tieredstore.levels[0].high", "0.7"},
		"relative path": {
			"path: /dev/shm", "path: dev/shm", "AlluxioRuntime.spec.tieredstore.levels[0].path",
			"not absolute",
		},
		"no tier": {
			"    levels:\n      - mediumtype: MEM\n        path: /dev/shm\n        quota: 2Gi\n   " +
				"     high: \"0.95\"\n        low: \"0.7\"\n", "    levels: []\n", "AlluxioRuntime.spec.tieredstore.levels",
			"at least one tier",
		},
		"a medium twice": {
			"      - mediumtype: MEM\n",
			"      - {mediumtype: MEM, path: /mnt, quota: 1Gi}\n      - mediumtype: MEM\n",
			"AlluxioRuntime.spec.tieredstore.levels[1].mediumtype", "each once",
		},
		"port": {
			"    replicas: 3\n", "    replicas: 3\n    ports: {rpc: 70000}\n",
			"AlluxioRuntime.spec.master.ports[rpc]", "65535",
		},
		"port's name": {
			"    replicas: 3\n", "    replicas: 3\n    ports: {grpc: 7000}\n",
			"AlluxioRuntime.spec.master.ports[grpc]", "not known",
		},
		"port as a property": {
			"    replicas: 3\n",
			"    replicas: 3\n    properties: {alluxio.master.rpc.port: many}\n",
			"AlluxioRuntime.spec.properties[alluxio.master.rpc.port]", "65535",
		},
		"volume": {
			"    replicas: 3\n", "    replicas: 3\n    volumeMounts: [{name: x, mountPath: /x}]\n",
			"AlluxioRuntime.spec.master.volumeMounts[0].name", `"x"`,
		},
		"limit below tier": {
			"  replicas: 2\n", "  replicas: 2\n  worker: {resources: {limits: {memory: 1Gi}}}\n",
			"AlluxioRuntime.spec.worker.resources.limits.memory", "1Gi",
		},
		"block above tier": {
			"    replicas: 3\n",
			"    replicas: 3\n    properties: {alluxio.user.block.size.bytes.default: '4294967296'}\n",
			"AlluxioRuntime.spec.master.properties[alluxio.user.block.size.bytes.default]", "smallest",
		},
		"block with a unit": {
			"  replicas: 2\n",
			"  replicas: 2\n  properties: {alluxio.user.block.size.bytes.default: 4GB}\n",
			"AlluxioRuntime.spec.properties[alluxio.user.block.size.bytes.default]", "is 4GB, which does not fit",
		},
		"block of no size": {
			"  replicas: 2\n",
			"  replicas: 2\n  properties: {alluxio.user.block.size.bytes.default: 64MiB}\n",
			"AlluxioRuntime.spec.properties[alluxio.user.block.size.bytes.default]", "such as 64MB",
		},
		"digit first":   {"name: hbase", "name: 1hbase", "Dataset.metadata.name", "DNS label"},
		"name too long": {"name: hbase", "name: " + strings.Repeat("a", 46), "Dataset.metadata.name", "45"},
		"annotation": {
			"kind: Dataset\nmetadata:\n",
			"kind: Dataset\nmetadata:\n  annotations: {pvc.fluid.io/resources.requests.storage: lots}\n",
			"Dataset.metadata.annotations[pvc.fluid.io/resources.requests.storage]", "lots",
		},
	}
	raw, err := os.ReadFile("testdata/walkthrough.yaml")
	must(t, err)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(string(raw), c.old) {
				t.Fatalf("the walkthrough has no %q", c.old)
			}
			in := parse(t, []byte(strings.Replace(string(raw), c.old, c.new, 1)))
			plan, problems := Desired(in)
			if plan != nil {
				t.Error("there is a plan all the same")
			}
			for _, p := range problems {
				if p.Field == c.field && strings.Contains(p.Why, c.why) {
					return
				}
			}
			t.Errorf("got the problems %q, want one at %s with %q", problems, c.field, c.why)
		})
	}
}

// TestSecretsStayWhereTheyBelong looks for the value of a secret everywhere it must not be.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	for file, secret := range map[string]string{
		"testdata/s3secret.yaml":   "not+a/real=secret",
		"testdata/everything.yaml": "open sesame",
	} {
		plan, problems := Desired(read(t, file))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		for _, o := range plan.Objects {
			if o.GetObjectKind().GroupVersionKind().Kind == "Secret" {
				continue
			}
			if strings.Contains(string(render(t, &Plan{Objects: []Object{o}})), secret) {
				t.Errorf("%s: %s %s has the secret", file, o.GetObjectKind().GroupVersionKind().Kind, o.GetName())
			}
		}
	}
}

// TestMountHashKnowsSecrets changes a secret, and the mount must not look the same.
func TestMountHashKnowsSecrets(t *testing.T) {
	in := read(t, "testdata/s3secret.yaml")
	before, _ := Desired(in)
	in.Secrets["keys"].Data["key"] = []byte("rotated")
	after, _ := Desired(in)
	if before.Mounts[0].Properties[HashOption] == after.Mounts[0].Properties[HashOption] {
		t.Error("a rotated secret does not change the mount's hash")
	}
}

// TestGatewaysFollowWithoutPods rotates a secret of a source behind a gateway, adds a mount, and takes one away: the
// pods stay as they are, and are told that there is something else to serve.
func TestGatewaysFollowWithoutPods(t *testing.T) {
	rotated, added, removed := read(t, "testdata/everything.yaml"), read(t, "testdata/everything.yaml"), read(t,
		"testdata/everything.yaml")
	before, problems := Desired(read(t, "testdata/everything.yaml"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	rotated.Secrets["web"].Data["password"] = []byte("rotated")
	more := v1alpha1.Mount{MountPoint: "https://more.example.org/", Name: "more"}
	added.Dataset.Spec.Mounts = append(added.Dataset.Spec.Mounts, more)
	for i := range removed.Dataset.Spec.Mounts {
		if kindOf(removed.Dataset.Spec.Mounts[i].MountPoint) == behindGateway {
			removed.Dataset.Spec.Mounts = slices.Delete(removed.Dataset.Spec.Mounts, i, i+1)
			break
		}
	}
	for name, in := range map[string]Input{
		"a rotated secret": rotated, "another mount": added,
		"a mount less": removed,
	} {
		after, problems := Desired(in)
		if len(problems) > 0 {
			t.Fatal(name, problems)
		}
		if before.SourcesHash == "" || before.SourcesHash == after.SourcesHash {
			t.Errorf("%s: pods are told %q before and %q after", name, before.SourcesHash, after.SourcesHash)
		}
		if slices.Equal(before.Sources, after.Sources) {
			t.Errorf("%s: the same is expected of the gateways", name)
		}
		for i, o := range before.Objects {
			if set, ok := o.(*appsv1.StatefulSet); ok {
				other, _ := after.Objects[i].(*appsv1.StatefulSet)
				if !equality.Semantic.DeepEqual(set.Spec.Template, other.Spec.Template) {
					t.Errorf("%s: the pods of %s are replaced", name, set.Name)
				}
			}
		}
	}
}

func TestBlockSize(t *testing.T) {
	for quota, want := range map[string]int64{"2Gi": 512 << 20, "1Ti": 4 << 30, "1Mi": 1 << 20, "10Mi": 2 << 20} {
		q := resource.MustParse(quota)
		if got := blockSize([]tier{{dirs: []tierDir{{quota: q.Value()}}}}); got != want {
			t.Errorf("a tier of %s has blocks of %d bytes, want %d", quota, got, want)
		}
	}
}

func TestUnsupportedIsNamed(t *testing.T) {
	plan, problems := Desired(read(t, "testdata/everything.yaml"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	got := strings.Join(plan.Unsupported, " ")
	want := "AlluxioRuntime.spec.fuse.args AlluxioRuntime.spec.fuse.image AlluxioRuntime.spec.runAs.group " +
		"Dataset.spec.accessModes (the volume is read-only)"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
