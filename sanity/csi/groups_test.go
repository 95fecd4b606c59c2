package csi_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"millrace.io/millrace/sanity/mixin"
)

// showing is a pod and how its volume is to be shown to it.
type showing struct {
	pod string
	// group is its fsGroup, "" for none.
	group string
	// attributes are those of its PersistentVolume, nil for the volume's; secrets those of its publishing.
	attributes, secrets map[string]string
}

// capability is the volume's for a pod of the group.
func capability(group string) *csi.VolumeCapability {
	c := mountCapability()
	c.GetMount().VolumeMountGroup = group
	return c
}

// stageFor stages a volume as kubelet does for the first pod of a node.
func (n *node) stageFor(id, group string, attributes, secrets map[string]string) error {
	req := n.request(id)
	req.VolumeCapability, req.Secrets = capability(group), secrets
	if attributes != nil {
		req.VolumeContext = attributes
	}
	_, err := n.client().NodeStageVolume(n.t.Context(), req)
	return err
}

// show publishes a volume for a pod.
func (n *node) show(ctx context.Context, id string, s showing) error {
	if err := os.MkdirAll(filepath.Dir(n.target(id, s.pod)), 0o750); err != nil {
		return err
	}
	attributes := s.attributes
	if attributes == nil {
		attributes = n.volumeContext()
	}
	_, err := n.client().NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: id, StagingTargetPath: n.staging(id), TargetPath: n.target(id, s.pod),
		VolumeCapability: capability(s.group), VolumeContext: attributes, Secrets: s.secrets, Readonly: true,
	})
	return err
}

// readAs has a process of another user read a file of a pod's volume; group is one more of its groups, "" for none.
func (n *node) readAs(uid uint32, group, id, pod, file string) (string, error) {
	who := &syscall.Credential{Uid: uid, Gid: uid}
	if group != "" {
		gid, err := strconv.ParseUint(group, 10, 32)
		n.must("a group", err)
		who.Groups = []uint32{uint32(gid)}
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), patience())
	defer cancel()
	cat := exec.CommandContext(ctx, "cat", filepath.Join(n.target(id, pod), file))
	cat.Dir = "/"
	cat.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	out, err := cat.Output()
	return string(out), err
}

// openPods lets every user reach the targets of a volume's pods.
func (n *node) openPods(id string, pods ...string) {
	n.t.Helper()
	n.openPath(n.dir)
	for _, pod := range pods {
		for dir := n.target(id, pod); dir != n.dir; dir = filepath.Dir(dir) {
			n.must("making a directory", os.MkdirAll(filepath.Dir(dir), 0o755))
			n.must("opening a directory", os.Chmod(filepath.Dir(dir), 0o755))
		}
	}
}

// views are the mounts that the driver made beside the staged ones.
func (n *node) views() []string {
	all, _ := filepath.Glob(n.at("state/ephemeral/*"))
	return all
}

// orders are all orders of the pods.
func orders(pods []showing) [][]showing {
	if len(pods) == 0 {
		return [][]showing{nil}
	}
	var all [][]showing
	for i := range pods {
		for _, rest := range orders(slices.Concat(pods[:i], pods[i+1:])) {
			all = append(all, append([]showing{pods[i]}, rest...))
		}
	}
	return all
}

// TestGroupsOfOneVolume: pods with different groups and with none read, in each order, one after the other or at
// once. Each is shown its own group, which decides where the source tells permissions.
func TestGroupsOfOneVolume(t *testing.T) {
	n := newNode(t)
	n.startInside()
	n.must("a file of root and its group", os.WriteFile(n.at("source/ours"), []byte("ours"), 0o640))
	pods := []showing{{pod: "none"}, {pod: "g2000", group: "2000"}, {pod: "g3000", group: "3000"}}
	local := map[string]string{"source": n.at("source")}
	n.openPods("v", "none", "g2000", "g3000")
	for _, atOnce := range []bool{false, true} {
		for _, order := range orders(pods) {
			name := fmt.Sprintf("%s first, then %s, at once %v", order[0].pod, order[1].pod, atOnce)
			n.must(name, n.stageFor("v", order[0].group, local, nil))
			var publishing sync.WaitGroup
			for _, s := range order {
				s.attributes = local
				publish := func() {
					if err := n.show(t.Context(), "v", s); err != nil {
						t.Errorf("%s: %s: %v", name, s.pod, err)
					}
				}
				if publishing.Go(publish); !atOnce {
					publishing.Wait()
				}
			}
			publishing.Wait()
			for i, s := range order {
				n.readsAsItsGroup(name, "v", s, uint32(1000+i))
			}
			if got := len(n.views()); got != 2 {
				t.Errorf("%s: %d views", name, got)
			}
			for _, s := range order {
				n.must("statistics", n.hasStats("v", n.target("v", s.pod)))
				n.must("unpublishing", n.unpublish(t.Context(), "v", s.pod))
			}
			if got := n.views(); len(got) > 0 {
				t.Errorf("%s: views without a pod: %v", name, got)
			}
			n.must("unstaging", n.unstage(t.Context(), "v"))
		}
	}
	if fds := devices(os.Getpid()); fds > 0 {
		t.Errorf("%d devices are left open", fds)
	}
}

// readsAsItsGroup has a pod's user read what all may, and what the group of the volume's files may.
func (n *node) readsAsItsGroup(name, id string, s showing, uid uint32) {
	n.t.Helper()
	if got, err := n.readAs(uid, s.group, id, s.pod, "file"); err != nil || got != string(n.data) {
		n.t.Errorf("%s: %s reads %d bytes: %v", name, s.pod, len(got), err)
	}
	got, err := n.readAs(uid, s.group, id, s.pod, "ours")
	if reads := err == nil && got == "ours"; reads != (s.group != "") {
		n.t.Errorf("%s: %s reads %q of a file that its group may read: %v", name, s.pod, got, err)
	}
	st, err := os.Stat(filepath.Join(n.target(id, s.pod), "file"))
	n.must("stat", err)
	if gid := strconv.Itoa(int(st.Sys().(*syscall.Stat_t).Gid)); gid != cmp.Or(s.group, "0") {
		n.t.Errorf("%s: %s is shown the group %s", name, s.pod, gid)
	}
}

// hasStats asks for the statistics of a volume at a path, and whether its condition is good there.
func (n *node) hasStats(id, path string) error {
	asked := &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: path}
	resp, err := n.client().NodeGetVolumeStats(n.t.Context(), asked)
	if err == nil && len(resp.GetUsage()) == 0 {
		err = errors.New("no usage is told")
	}
	if err != nil {
		return err
	}
	health, err := n.client().NodeGetVolumeHealth(n.t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: id})
	if got := health.GetVolumeHealth().GetHealthStatuses(); err == nil && len(got) > 0 {
		err = fmt.Errorf("adverse: %v", got)
	}
	return err
}

// TestGroupsOutliveTheDriver: views are taken over by the next driver and the next agent, made anew where both were
// killed, and go with their pods. What a build of before staged for a group, which alone could read it, stays as it
// is for its pods and is in no other's way.
func TestGroupsOutliveTheDriver(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startBoth()
	n.openPods("v", "old", "g2000", "none")
	// It gave files to the group by these attributes.
	before := map[string]string{"source": n.url, "fileMode": "0440", "dirMode": "0550"}
	n.must("staging", n.stageFor("v", "2000", before, nil))
	n.must("publishing", n.show(t.Context(), "v", showing{pod: "old", group: "2000", attributes: before}))
	read := func(when string) {
		t.Helper()
		for pod, group := range map[string]string{"old": "2000", "g2000": "2000", "none": ""} {
			n.eventually(when+": "+pod+" reads", func(context.Context) error {
				got, err := n.readAs(1000, group, "v", pod, "file")
				if err == nil && got != string(n.data) {
					err = fmt.Errorf("%d bytes", len(got))
				}
				return err
			})
			if layers := layersAt(n.target("v", pod)); layers != 1 {
				t.Errorf("%s: %d mounts at the target of %s", when, layers, pod)
			}
		}
	}
	n.stopPlugin()
	n.startPlugin()
	n.waitReady()
	// kubelet that was started anew stages and publishes again, for any of the pods.
	n.must("staging for another group", n.stageFor("v", "", nil, nil))
	for _, s := range []showing{{pod: "old", group: "2000"}, {pod: "g2000", group: "2000"}, {pod: "none"}} {
		n.must("publishing", n.show(t.Context(), "v", s))
	}
	read("at first")
	n.stopPlugin()
	n.startPlugin()
	n.waitReady()
	n.serving.Kill()
	n.startAgent()
	read("after the driver and the agent, one after the other")
	n.stopPlugin()
	n.serving.Kill()
	n.startBoth()
	read("after both")
	n.must("unpublishing", n.unpublish(t.Context(), "v", "none"))
	if got := len(n.views()); got != 1 {
		t.Errorf("%d views are left of two", got)
	}
	n.takeDown("v", "g2000", "old")
	if got := n.views(); len(got) > 0 {
		t.Errorf("views are left: %v", got)
	}
}

// TestTwoPersistentVolumesOfOneHandle: each reads its own source, with its own secrets, whichever was staged. One that
// needs secrets gets none of the other's, and is told of the handle.
func TestTwoPersistentVolumesOfOneHandle(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	n.startPlugin()
	n.waitReady()
	web := newLockedWeb(t, n.at("source"))
	n.must("another source", os.WriteFile(n.at("source/sub/file"), []byte("of B"), 0o644))
	of := func(namespace, path string) map[string]string {
		return map[string]string{"source": web.url + path, "csi.storage.k8s.io/pod.namespace": namespace}
	}
	first, keys := of("ta", "/"), web.keys()
	n.must("staging", n.stageFor("same", "", first, keys))
	n.must("publishing A", n.show(t.Context(), "same", showing{pod: "a", attributes: first}))
	for what, other := range map[string]map[string]string{"source": of("ta", "/sub/"), "tenant": of("tb", "/")} {
		err := n.show(t.Context(), "same", showing{pod: "b", attributes: other})
		expect(t, "another "+what+" without a secret", err, codes.InvalidArgument, `volumeHandle "same"`, "401")
		if layersAt(n.target("same", "b")) > 0 {
			t.Errorf("another %s: a mount is left", what)
		}
		n.must("unpublishing", n.unpublish(t.Context(), "same", "b"))
	}
	n.must("publishing B", n.show(t.Context(), "same", showing{pod: "b", attributes: of("tb", "/sub/"), secrets: keys}))
	if got, err := os.ReadFile(filepath.Join(n.target("same", "b"), "file")); err != nil || string(got) != "of B" {
		t.Errorf("B reads %q: %v", got, err)
	}
	n.must("publishing A once more", n.show(t.Context(), "same", showing{pod: "a2", attributes: first}))
	for _, pod := range []string{"a", "a2"} {
		n.must("reading as "+pod, n.read(n.target("same", pod)))
	}
	n.takeDown("same", "a", "b", "a2")
}

// TestSecretsOfAPublish: secrets that come with a publish are later than those of the stage, and those that come with a
// stage later than either. All mounts of the volume go on with the latest, and what is cached is readable all the time.
func TestSecretsOfAPublish(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	n.startPlugin()
	n.waitReady()
	web := newLockedWeb(t, n.at("source"))
	attributes := map[string]string{"source": web.url + "/", "revalidate": "0"}
	n.must("staging", n.stageFor("v", "", attributes, web.keys()))
	pods := []showing{{pod: "one", attributes: attributes}, {pod: "two", group: "2000", attributes: attributes}}
	for _, s := range pods {
		n.must("publishing", n.show(t.Context(), "v", s))
		n.must("reading", n.read(n.target("v", s.pod)))
	}
	check := func(when string, fresh bool) {
		t.Helper()
		for _, s := range pods {
			n.must(when+": reading what is cached as "+s.pod, n.read(n.target("v", s.pod)))
			if !fresh {
				continue
			}
			name := "new after " + when
			n.must("a new file", os.WriteFile(n.at("source/"+name), []byte("new"), 0o644))
			// One that is young would be waited for.
			n.must("its time", os.Chtimes(n.at("source/"+name), time.Time{}, time.Unix(1e9, 0)))
			n.eventually(when+": "+s.pod+" reads anew", func(context.Context) error {
				_, err := os.ReadFile(filepath.Join(n.target("v", s.pod), name))
				return err
			})
		}
	}
	web.rotate("two")
	check("the source was rotated", false)
	if err := n.hasStats("v", n.target("v", "one")); err == nil || !strings.Contains(err.Error(), "refuses the keys") {
		t.Errorf("the condition does not say why nothing new is read: %v", err)
	}
	third := showing{pod: "three", group: "3000", attributes: attributes, secrets: web.keys()}
	n.must("publishing with the new secret", n.show(t.Context(), "v", third))
	pods = append(pods, third)
	check("a publish", true)
	web.rotate("three")
	n.must("staging again", n.stageFor("v", "", attributes, web.keys()))
	check("a stage", true)
	wrong := maps.Clone(web.keys())
	wrong["pass"] = "wrong"
	_ = n.stageFor("v", "", attributes, wrong)
	check("a wrong secret", true)
	n.must("the condition at last", n.hasStats("v", n.target("v", "one")))
	n.takeDown("v", "one", "two", "three")
}

// TestStatsRaiseNoAlerts reads a volume with more bytes than its quota and asks for its statistics all the time, as a
// kubelet does: no alert on volumes that fill up fires, on the way or in the end.
func TestStatsRaiseNoAlerts(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	n.startPlugin()
	n.waitReady()
	const files, size, quota = 48, 256 << 10, 8 << 20
	for i := range files {
		part := n.at(fmt.Sprintf("source/part%02d", i))
		n.must("a file", os.WriteFile(part, bytes.Repeat([]byte{byte(i)}, size), 0o644))
	}
	attributes := map[string]string{"source": n.url, "quota": strconv.Itoa(quota), "high": "1"}
	n.must("staging", n.stageFor("v", "", attributes, nil))
	n.must("publishing", n.show(t.Context(), "v", showing{pod: "pod", attributes: attributes}))
	// The reading takes eight hours by the clock of the rules.
	var samples, before []mixin.Sample
	most := 0.0
	for i := range files {
		_, err := os.ReadFile(filepath.Join(n.target("v", "pod"), fmt.Sprintf("part%02d", i)))
		n.must("reading", err)
		s := n.sample("v", "pod")
		s.At = time.Duration(i) * 10 * time.Minute
		samples, most = append(samples, s), max(most, s.Used/s.Capacity)
		if firing := mixin.Firing(samples); len(firing) > 0 {
			t.Errorf("after %d files: %q: %+v", i+1, firing, s)
		}
		s.Available = s.Capacity - s.Used
		before = append(before, s)
	}
	if most < 0.9 {
		t.Fatalf("the cache was never full, only %.2f", most)
	}
	if !slices.ContainsFunc(before, func(s mixin.Sample) bool {
		i := slices.Index(before, s)
		return len(mixin.Firing(before[:i+1])) > 0
	}) {
		t.Error("no alert fires on what is not used of the quota, either: the rules see nothing")
	}
	n.takeDown("v", "pod")
}

// sample is what kubelet tells Prometheus of the driver's answer about a volume.
func (n *node) sample(id, pod string) mixin.Sample {
	n.t.Helper()
	asked := &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: n.target(id, pod)}
	resp, err := n.client().NodeGetVolumeStats(n.t.Context(), asked)
	n.must("statistics", err)
	var s mixin.Sample
	for _, u := range resp.GetUsage() {
		free, total, used := float64(u.GetAvailable()), float64(u.GetTotal()), float64(u.GetUsed())
		switch u.GetUnit() {
		case csi.VolumeUsage_BYTES:
			s.Available, s.Capacity, s.Used = free, total, used
		case csi.VolumeUsage_INODES:
			s.InodesFree, s.Inodes, s.InodesUsed = free, total, used
		case csi.VolumeUsage_UNKNOWN:
			n.t.Errorf("a usage of no unit: %v", u)
		}
	}
	return s
}
