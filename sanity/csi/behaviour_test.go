package csi_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/fuse/mountpoint"
)

// expect compares the code of an answer, and looks for words in its sentence.
func expect(t *testing.T, what string, err error, code codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%s: %v, want %s", what, err, code)
		return
	}
	for _, word := range words {
		if !strings.Contains(status.Convert(err).Message(), word) {
			t.Errorf("%s: %v lacks %q", what, err, word)
		}
	}
}

// request is what stages a volume, to be changed.
func (n *node) request(id string) *csi.NodeStageVolumeRequest {
	n.t.Helper()
	n.must("making a directory", os.MkdirAll(filepath.Dir(n.staging(id)), 0o750))
	return &csi.NodeStageVolumeRequest{
		VolumeId: id, StagingTargetPath: n.staging(id), VolumeCapability: mountCapability(),
		VolumeContext: n.volumeContext(),
	}
}

// TestRefusals: what can never work is refused in a sentence that says why, and leaves nothing.
func TestRefusals(t *testing.T) {
	n := newNode(t)
	n.startInside()
	for what, c := range map[string]struct {
		change func(*csi.NodeStageVolumeRequest)
		code   codes.Code
		words  []string
	}{
		"a block device": {func(r *csi.NodeStageVolumeRequest) {
			r.VolumeCapability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		}, codes.InvalidArgument, []string{"block"}},
		"an unknown attribute": {
			func(r *csi.NodeStageVolumeRequest) { r.VolumeContext["Quota"] = "1Gi" },
			codes.InvalidArgument,
			[]string{"Quota", "accepted"},
		},
		"a Dataset": {func(r *csi.NodeStageVolumeRequest) {
			r.VolumeContext = map[string]string{"dataset": "default/weather"}
		}, codes.FailedPrecondition, []string{"default/weather"}},
		"a directory of the node": {
			func(r *csi.NodeStageVolumeRequest) { r.VolumeContext["source"] = "/etc" },
			codes.InvalidArgument,
			[]string{"/etc", "--allow-local"},
		},
		"a tier elsewhere": {
			func(r *csi.NodeStageVolumeRequest) { r.VolumeContext["tierDir"] = "/etc" },
			codes.InvalidArgument,
			[]string{"/etc", "--tier-dir"},
		},
		"a mount option": {func(r *csi.NodeStageVolumeRequest) {
			r.VolumeCapability.GetMount().MountFlags = []string{"suid"}
		}, codes.InvalidArgument, []string{"suid", "umask=OCTAL"}},
		"the node's environment": {
			func(r *csi.NodeStageVolumeRequest) { r.VolumeContext["option.user"] = "env:HOME" },
			codes.InvalidArgument,
			[]string{"environment"},
		},
		"a file of the node": {func(r *csi.NodeStageVolumeRequest) { r.Secrets = map[string]string{"ca_cert": "/etc/shadow"} }, codes.InvalidArgument, []string{"ca_cert"}},
		"a source that is not " +
			"there": {
			func(r *csi.NodeStageVolumeRequest) { r.VolumeContext["source"] = "http://127.0.0.1:1/" },
			codes.Unavailable, nil,
		},
	} {
		req := n.request("a")
		c.change(req)
		_, err := n.client().NodeStageVolume(t.Context(), req)
		expect(t, what, err, c.code, c.words...)
		if layersAt(n.staging("a")) > 0 {
			t.Errorf("%s: a mount is left", what)
		}
	}
	if records, _ := filepath.Glob(n.at("state/volumes/*")); len(records) > 0 {
		t.Errorf("records are left: %v", records)
	}
	if fds := devices(os.Getpid()); fds > 0 {
		t.Errorf("%d devices are left open", fds)
	}
}

// TestAgainAndOtherwise: the same request again is fine, another one for the same volume is not.
func TestAgainAndOtherwise(t *testing.T) {
	n := newNode(t)
	n.startInside()
	expect(t, "publishing before staging", n.publish(t.Context(), "a", "pod"), codes.FailedPrecondition, "not staged")
	n.must("staging", n.stage(t.Context(), "a"))
	n.must("staging again", n.stage(t.Context(), "a"))
	other := n.request("a")
	other.VolumeContext["quota"] = "1Gi"
	_, err := n.client().NodeStageVolume(t.Context(), other)
	expect(t, "staging with another quota", err, codes.AlreadyExists)
	elsewhere := n.request("a")
	elsewhere.StagingTargetPath = n.staging("b")
	n.must("making a directory", os.MkdirAll(filepath.Dir(n.staging("b")), 0o750))
	_, err = n.client().NodeStageVolume(t.Context(), elsewhere)
	expect(t, "staging at another path", err, codes.AlreadyExists)
	n.must("publishing", n.publish(t.Context(), "a", "pod"))
	n.must("publishing again", n.publish(t.Context(), "a", "pod"))
	if layers := layersAt(n.target("a", "pod")); layers != 1 {
		t.Errorf("%d mounts at the target", layers)
	}
	expect(t, "unstaging what is published", n.unstage(t.Context(), "a"), codes.FailedPrecondition,
		n.target("a", "pod"))
	n.must("reading", n.read(n.target("a", "pod")))
	if err := os.WriteFile(filepath.Join(n.target("a", "pod"), "new"), nil, 0o600); err == nil {
		t.Error("a published volume can be written to")
	}

	n.must("making a directory", os.MkdirAll(n.target("a", "foreign"), 0o750))
	n.must("mounting", unix.Mount("tmpfs", n.target("a", "foreign"), "tmpfs", 0, "size=64k"))
	expect(t, "publishing onto another mount", n.publish(t.Context(), "a", "foreign"), codes.FailedPrecondition)
	n.must("unmounting", mountpoint.Detach(n.target("a", "foreign"), mountpoint.Plainly))

	n.must("unpublishing", n.unpublish(t.Context(), "a", "pod"))
	n.must("unpublishing again", n.unpublish(t.Context(), "a", "pod"))
	n.must("unstaging", n.unstage(t.Context(), "a"))
	n.must("unstaging again", n.unstage(t.Context(), "a"))
	n.must("unpublishing what nobody knows", n.unpublish(t.Context(), "nobody", "pod"))
	if fds := devices(os.Getpid()); fds > 0 {
		t.Errorf("%d devices are left open", fds)
	}
}

// TestSymlinkedKubelet: kubelet's directory may be a symbolic link, which mountinfo resolves.
func TestSymlinkedKubelet(t *testing.T) {
	n := newNode(t)
	n.startInside()
	n.must("renaming", os.Rename(n.at("kubelet"), n.at("elsewhere")))
	n.must("linking", os.Symlink("elsewhere", n.at("kubelet")))
	n.must("staging", n.stage(t.Context(), "a"))
	n.must("staging again", n.stage(t.Context(), "a"))
	n.must("publishing", n.publish(t.Context(), "a", "pod"))
	n.must("publishing again", n.publish(t.Context(), "a", "pod"))
	n.must("reading", n.read(n.target("a", "pod")))
	n.takeDown("a", "pod")
}

// TestEphemeral: a volume that is part of a pod comes with its publishing and goes with it.
func TestEphemeral(t *testing.T) {
	n := newNode(t)
	n.startInside()
	n.must("making a directory", os.MkdirAll(filepath.Dir(n.target("inline", "pod")), 0o750))
	values := n.volumeContext()
	values["csi.storage.k8s.io/ephemeral"] = "true"
	for range 2 {
		_, err := n.client().NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
			VolumeId: "inline", TargetPath: n.target("inline", "pod"), VolumeCapability: mountCapability(),
			VolumeContext: values,
		})
		n.must("publishing", err)
	}
	n.must("reading", n.read(n.target("inline", "pod")))
	n.must("unpublishing", n.unpublish(t.Context(), "inline", "pod"))
	if left, _ := filepath.Glob(n.at("state/*/*")); len(left) > 0 {
		t.Errorf("left in the state directory: %v", left)
	}
	n.must("unpublishing again", n.unpublish(t.Context(), "inline", "pod"))
}

// TestGroup: a volume that is given to a group is that group's, and options of its mount say what it may not be.
func TestGroup(t *testing.T) {
	n := newNode(t)
	n.startInside()
	for id, c := range map[string]struct {
		mount             *csi.VolumeCapability_MountVolume
		uid, gid          uint32
		fileMode, dirMode os.FileMode
	}{
		"group": {&csi.VolumeCapability_MountVolume{VolumeMountGroup: "2000"}, 0, 2000, 0o444, 0o555},
		"both": {&csi.VolumeCapability_MountVolume{
			VolumeMountGroup: "2000", MountFlags: []string{"gid=8", "umask=0007"},
		}, 0, 8, 0o440, 0o550},
		"umask": {
			&csi.VolumeCapability_MountVolume{MountFlags: []string{"uid=7", "gid=8", "umask=0077"}}, 7, 8, 0o400,
			0o500,
		},
	} {
		req := n.request(id)
		req.VolumeCapability.AccessType = &csi.VolumeCapability_Mount{Mount: c.mount}
		_, err := n.client().NodeStageVolume(t.Context(), req)
		n.must("staging", err)
		for name, mode := range map[string]os.FileMode{"": c.dirMode, "sub": c.dirMode, "file": c.fileMode} {
			st, err := os.Stat(filepath.Join(n.staging(id), name))
			n.must("stat", err)
			owner := st.Sys().(*syscall.Stat_t)
			if st.Mode().Perm() != mode || owner.Uid != c.uid || owner.Gid != c.gid {
				t.Errorf("%s %q: %v %d:%d", id, name, st.Mode(), owner.Uid, owner.Gid)
			}
		}
		n.must("unstaging", n.unstage(t.Context(), id))
	}
}

// TestSecretsStayHome: secrets are in the state, which only root reads, and not in the log.
func TestSecretsStayHome(t *testing.T) {
	n := newNode(t)
	n.startInside()
	req := n.request("a")
	req.Secrets = map[string]string{"pass": "hunter2"}
	_, err := n.client().NodeStageVolume(t.Context(), req)
	n.must("staging", err)
	n.must("unstaging", n.unstage(t.Context(), "a"))
	if strings.Contains(n.log.String(), "hunter2") {
		t.Error("a secret is in the log")
	}
}

// TestStop: a plugin that is asked to stop leaves every mount in place, and ends.
func TestStop(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startBoth()
	n.must("staging", n.stage(t.Context(), "a"))
	n.must("publishing", n.publish(t.Context(), "a", "pod"))
	n.must("asking the plugin to stop", syscall.Kill(n.plugin.Pid(), syscall.SIGTERM))
	select {
	case <-n.plugin.Ended():
	case <-time.After(patience()):
		t.Fatal("the plugin does not stop")
	}
	n.must("reading", n.read(n.target("a", "pod")))
	n.startPlugin()
	n.waitReady()
	n.takeDown("a", "pod")
}
