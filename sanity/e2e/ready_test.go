package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pace"
)

// testReady harms one part of a Dataset after the other. Ready is what a read would find: the condition names the part
// within 15 s, and is well again within 30 s of when it is mended, with the same pods.
func testReady(t *testing.T) {
	r := &ready{rest: &rest{get(t)}}
	if !short() {
		r.keyed, r.secure = r.startOrigin(t, "8090", false), r.startOrigin(t, "8443", true)
		t.Cleanup(func() { _, _ = r.cluster.Kubectl(r.ctx, "delete", "secret", "live", "--ignore-not-found") })
	}
	r.inOrder(t, []step{
		{"Begin", r.start},
		{"SourceDown", r.sourceDown},
		{"KeysRotated", r.keysRotated},
		{"Authority", r.authority},
		{"AuthorityByPath", r.authorityByPath},
		{"S3Keys", r.s3Keys},
		{"SamePods", r.samePods},
		{"NoLeader", r.noLeader},
		{"Taint", r.taint},
		{"Quota", r.quota},
		{"Tier", r.tier},
		{"Deleted", r.ended},
	})
}

// ready are Datasets whose sources are harmed: one with a token from a Secret, one with a certificate that no authority
// vouches for, and one of S3.
type ready struct {
	*rest
	keyed, secure *origin
	// pods are those of the Datasets, with how often their containers were started.
	pods string
}

const (
	toldWithin   = 15 * time.Second
	mendedWithin = 30 * time.Second
)

// readySpecs are the Dataset live, and one whose certificate is not checked where the option says so.
const readySpecs = `apiVersion: v1
kind: Secret
metadata: {name: live}
stringData: {headers: "X-Token,first"}
---
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: live}
spec:
  placement: Shared
  mounts:
    - mountPoint: http://` + mirrorName + `:8090/one/
      name: one
      encryptOptions: [{name: headers, valueFrom: {secretKeyRef: {name: live, key: headers}}}]
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: live}
spec:
  replicas: 1
  tieredstore: {levels: [{mediumtype: MEM, path: /dev/shm, quota: 256Mi}]}
  master: {replicas: 1}
---
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: tls}
spec:
  placement: Shared
  mounts: [{mountPoint: "https://` + mirrorName + `:8443/two/", name: two, options: {no_check_certificate: "false"}}]
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: tls}
spec:
  replicas: 1
  tieredstore: {levels: [{mediumtype: MEM, path: /dev/shm, quota: 256Mi}]}
  master: {replicas: 1}
`

func (r *ready) start(t *testing.T) {
	r.startS3(t)
	r.keyed.token.Store("first")
	r.apply(t, readySpecs)
	wrong := strings.ReplaceAll(s3Dataset, "not+a/real=secret", "another secret key")
	r.apply(t, wrong)
	r.await(t, "live", 3*time.Minute, "True DatasetReady")
	r.apply(t, user("warm", "node1", "sha256sum /live/one/*", "", "live"))
	hasSmall(t, r.ran(t, "warm"), "/live/one/")
	for _, name := range []string{"tls", "objects"} {
		r.bound(t, name)
	}
	r.pods = r.podsNow(t)
}

// podsNow are the pods of the Datasets, with their identities and how often their containers were started.
func (r *ready) podsNow(t *testing.T) string {
	t.Helper()
	return r.kubectl(t, "get", "pods", "-l", "app=alluxio", "--sort-by=.metadata.name", "-o",
		"jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} "+
			`{.status.containerStatuses[*].restartCount}{"\n"}{end}`)
}

// await waits until Ready of a Dataset begins with a status and a reason, and its message says all the words. It
// returns how long that took.
func (r *ready) await(t *testing.T, name string, patience time.Duration, status string, says ...string) time.Duration {
	t.Helper()
	return await(t, patience, name+" is "+status, func() error {
		line, err := r.cluster.Kubectl(t.Context(), "get", "dataset", name, "-o",
			`jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.reason}: {.message}{end}`)
		if err != nil {
			return err
		}
		for _, text := range append([]string{status + ":"}, says...) {
			if !strings.Contains(line, text) {
				return fmt.Errorf("it says %q, and not %q", line, text)
			}
		}
		return nil
	})
}

// told harms a Dataset, and waits until Ready names what is wrong.
func (r *ready) told(t *testing.T, name, reason string, harm func(), says ...string) {
	t.Helper()
	harm()
	took := r.await(t, name, time.Minute, "False "+reason, says...)
	t.Logf("%s is told after %v", reason, took.Round(100*time.Millisecond))
	pace.Within(t, "telling "+reason, took, toldWithin)
	if phase := r.kubectl(t, "get", "dataset", name, "-o", "jsonpath={.status.phase}"); phase != "Bound" {
		t.Errorf("the phase is %s", phase)
	}
}

// mended mends it, and waits until the Dataset is ready by itself.
func (r *ready) mended(t *testing.T, name string, mend func()) {
	t.Helper()
	mend()
	took := r.await(t, name, 2*time.Minute, "True DatasetReady")
	t.Logf("ready again after %v", took.Round(100*time.Millisecond))
	pace.Within(t, "being ready again", took, mendedWithin)
}

// sourceDown ends the web server, while what is cached is read.
func (r *ready) sourceDown(t *testing.T) {
	r.told(t, "live", "SourceUnreached", func() { r.keyed.stop(t) },
		"http://"+mirrorName+":8090/one/ of the mount one is not reached", "refuses the connection",
		"what is cached is served")
	r.apply(t, user("cached", "node1", "cat /live/one/c.txt | wc -c", "", "live"))
	if got := strings.TrimSpace(r.ran(t, "cached")); got != "12345" {
		t.Errorf("a cached file has %s bytes", got)
	}
	r.mended(t, "live", func() { r.keyed.start(t) })
}

// keysRotated has the web server want another token, and gives the Secret that one.
func (r *ready) keysRotated(t *testing.T) {
	r.told(t, "live", "SourceRefuses", func() { r.keyed.token.Store("second") },
		"refuses the keys of the Secret live (headers)", "403")
	r.mended(t, "live", func() {
		r.kubectl(t, "patch", "secret", "live", "-p", `{"stringData":{"headers":"X-Token,second"}}`)
	})
	r.apply(t, user("rotated", "node2", "sha256sum /live/one/*", "", "live"))
	hasSmall(t, r.ran(t, "rotated"), "/live/one/")
}

// authority has a certificate that no other authority vouches for be taken as it is.
func (r *ready) authority(t *testing.T) {
	r.told(t, "tls", "SourceUntrusted", func() {}, "https://"+mirrorName+":8443/two/ of the mount two is not trusted",
		"ca_cert")
	r.mended(t, "tls", func() {
		r.kubectl(t, "patch", "dataset", "tls", "--type=json", "-p",
			`[{"op":"replace","path":"/spec/mounts/0/options/no_check_certificate","value":"true"}]`)
	})
	r.apply(t, user("trusted", "node1", "sha256sum /tls/two/*", "", "tls"))
	hasSmall(t, r.ran(t, "trusted"), "/tls/two/")
}

// authorityByPath names an authority by a path, which no gateway has: the spec is refused by its field, and what is
// served goes on.
func (r *ready) authorityByPath(t *testing.T) {
	options := func(text string) {
		r.kubectl(t, "patch", "dataset", "tls", "--type=merge", "-p",
			`{"spec":{"mounts":[{"mountPoint":"https://`+mirrorName+`:8443/two/","name":"two","options":`+text+`}]}}`)
	}
	options(`{"ca_cert":"/x.pem"}`)
	r.await(t, "tls", time.Minute, "False InvalidSpec", "spec.mounts[0]", "ca_cert", "PEM")
	r.mended(t, "tls", func() { options(`{"no_check_certificate":"true"}`) })
}

// s3Keys has Alluxio itself read a source with a key that the server does not take, and then with the right one.
func (r *ready) s3Keys(t *testing.T) {
	r.told(t, "objects", "SourceRefuses", func() {},
		"s3://data/ of the mount data refuses the keys of the Secret keys (id, key)")
	r.mended(t, "objects", func() {
		r.kubectl(t, "patch", "secret", "keys", "-p", `{"stringData":{"key":"not+a/real=secret"}}`)
	})
	r.apply(t, user("objects", "node2", "sha256sum /objects/data/*", "", "objects"))
	hasSmall(t, r.ran(t, "objects"), "/objects/data/")
}

// samePods looks that nothing of this restarted a pod.
func (r *ready) samePods(t *testing.T) {
	if now := r.podsNow(t); now != r.pods {
		t.Errorf("the pods were\n%s\nand are\n%s", r.pods, now)
	}
}

// noLeader takes the only master away. A finalizer keeps its pod, and with that the next one from being made.
func (r *ready) noLeader(t *testing.T) {
	hold := func(finalizers string) {
		r.kubectl(t, "patch", "pod", "objects-master-0", "--type=merge", "-p",
			`{"metadata":{"finalizers":`+finalizers+`}}`)
	}
	r.told(t, "objects", "NoLeader", func() {
		hold(`["millrace.test/hold"]`)
		r.kubectl(t, "delete", "pod", "objects-master-0", "--wait=false", "--grace-period=1")
	}, "no master")
	hold("null")
	r.await(t, "objects", 2*time.Minute, "True DatasetReady")
}

// lose deletes the worker of the Dataset live, so that another has to be made.
func (r *ready) lose(t *testing.T) {
	t.Helper()
	r.kubectl(t, "delete", "pod", "live-worker-0", "--grace-period=1")
}

// taint keeps pods from all nodes.
func (r *ready) taint(t *testing.T) {
	t.Cleanup(func() { _, _ = r.cluster.Kubectl(r.ctx, "taint", "node", "--all", "closed-") })
	r.kubectl(t, "taint", "node", "--all", "closed=yes:NoSchedule")
	r.told(t, "live", "Unschedulable", func() { r.lose(t) }, "the pod live-worker-0 cannot be scheduled",
		"untolerated taint")
	r.kubectl(t, "taint", "node", "--all", "closed-")
	took := r.await(t, "live", 2*time.Minute, "True DatasetReady")
	t.Logf("ready again, with another worker, after %v", took.Round(100*time.Millisecond))
	// kubelet looks a little later at what the master knows.
	r.says(t, 30*time.Second, "1", "get", "statefulset", "live-worker", "-o", "jsonpath={.status.readyReplicas}")
}

// quota leaves no room for pods.
func (r *ready) quota(t *testing.T) {
	t.Cleanup(func() { _, _ = r.cluster.Kubectl(r.ctx, "delete", "quota", "none", "--ignore-not-found") })
	r.kubectl(t, "create", "quota", "none", "--hard=pods=0")
	r.told(t, "live", "Quota", func() { r.lose(t) }, "the StatefulSet live-worker", "exceeded quota: none")
	r.kubectl(t, "delete", "quota", "none")
	// Kubernetes tries again at times of its own.
	r.await(t, "live", 3*time.Minute, "True DatasetReady")
}

// tier has tiers in a directory that agents do not see, and in one that no node can make.
func (r *ready) tier(t *testing.T) {
	for _, node := range []string{"node1", "node2"} {
		r.onNode(t, "block-"+node, node, "/srv", "touch /d/blocked")
	}
	for name, dir := range map[string]string{"disk": "/var/lib/ssd0/cache", "blocked": "/srv/blocked/cache"} {
		text := strings.ReplaceAll(fmt.Sprintf(sharedDataset, name, 1), "/small/"+name+"/", "/small/one/")
		r.apply(t, strings.Replace(text, "{mediumtype: MEM, path: /dev/shm, quota: 256Mi}",
			"{mediumtype: SSD, path: "+dir+", quota: 256Mi}", 1))
	}
	r.await(t, "blocked", time.Minute, "False VolumeMount", "the pod blocked-worker-0",
		"mkdir /srv/blocked: not a directory")
	for _, node := range []string{"node1", "node2"} {
		r.onNode(t, "free-"+node, node, "/srv", "rm /d/blocked")
	}
	r.await(t, "disk", 3*time.Minute, "True DatasetReady")
	line := r.kubectl(t, "get", "alluxioruntime", "disk", "-o",
		`jsonpath={range .status.conditions[?(@.type=="TiersSeen")]}{.status} {.reason} {.message}{end}`)
	for _, text := range []string{
		"False NotSeen ", "spec.tieredstore.levels[0] is in /var/lib/ssd0/cache", "many times slower",
		"tierDirs of the chart mends it: add /var/lib/ssd0/cache",
	} {
		if !strings.Contains(line, text) {
			t.Errorf("the runtime says %q, and not %q", line, text)
		}
	}
	// kubelet tries again at times of its own.
	r.await(t, "blocked", 3*time.Minute, "True DatasetReady")
}

func (r *ready) ended(t *testing.T) {
	r.kubectl(t, "delete", "secret", "live")
	r.deleted(t)
}
