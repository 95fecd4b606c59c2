package driver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/fuse/handover"
)

// A volume is staged once on a node, for the first of its pods, and pods may differ in what they are to be shown: in
// the group of their files, or because two PersistentVolumes have one handle. A view is one more mount of a staged
// volume for those that are shown the same. Its record is as that of an ephemeral volume, and its lock the volume's.
// D-235 says why.

// namespaceKey is how kubelet tells a pod's namespace with a publish.
const namespaceKey = "csi.storage.k8s.io/pod.namespace"

// handle is the id by which the orchestrator knows the volume that the record is of.
func (r record) handle() string {
	if r.Of != "" {
		return r.Of
	}
	return r.Volume.ID
}

// handleOf is the handle of the record of this id, the id where there is no record.
func (d *Driver) handleOf(id string) string {
	if rec, ok := d.records.get(id); ok {
		return rec.handle()
	}
	return id
}

// mountsOf are the records of a volume: its own, and those of its views.
func (d *Driver) mountsOf(handle string) []record {
	var mounts []record
	for _, id := range d.records.ids() {
		if rec, ok := d.records.get(id); ok && rec.handle() == handle {
			mounts = append(mounts, rec)
		}
	}
	return mounts
}

// clearViews takes the views of a volume away. The caller has the volume's lock.
func (d *Driver) clearViews(ctx context.Context, handle string) error {
	var group errgroup.Group
	for _, rec := range d.mountsOf(handle) {
		if rec.Of != "" {
			group.Go(func() error { return d.clear(ctx, rec) })
		}
	}
	return group.Wait()
}

// shown is the record of the mount that a publish of a staged volume shows, in order and served: the one that is
// published there already, the volume's own, or a view. The caller has the volume's lock.
func (d *Driver) shown(ctx context.Context, staged record, req *csi.NodePublishVolumeRequest) (record, error) {
	rec, err := d.choose(ctx, staged, req)
	if err == nil {
		d.spread(ctx, rec)
	}
	return rec, err
}

func (d *Driver) choose(ctx context.Context, staged record, req *csi.NodePublishVolumeRequest) (record, error) {
	for _, rec := range d.mountsOf(staged.handle()) {
		if rec.Phase == phaseStaged && rec.target(knownPath(req.GetTargetPath())) != nil {
			return d.refreshed(ctx, rec, req.GetSecrets())
		}
	}
	asked, err := d.asked(staged, req)
	if err != nil {
		return record{}, err
	}
	if sameMount(staged, asked) {
		staged, err = d.refreshed(ctx, staged, req.GetSecrets())
		staged.Namespace = asked.Namespace
		return staged, err
	}
	view, err := viewOf(d.cfg.StateDir, staged, asked)
	if err != nil {
		return record{}, err
	}
	if err := d.cfg.Policy.Check(view.Volume); err != nil {
		return record{}, invalid(err)
	}
	if _, err := makeParent(view.Volume.Dir); err != nil {
		return record{}, err
	}
	if samePersistentVolume(staged, asked) {
		return d.stage(ctx, view)
	}
	d.log.Warn("two PersistentVolumes have one volumeHandle, and each is shown its own source",
		"volume", staged.Volume, "source", asked.Volume.Source)
	view, err = d.stage(ctx, view)
	if err != nil {
		err = fmt.Errorf("another PersistentVolume with the volumeHandle %q is staged on this node, so that this one "+
			"gets no node-stage secret; give each a volumeHandle of its own: %w", staged.Volume.ID, err)
	}
	return view, err
}

// refreshed brings a mount that is staged in order, with the secrets that came with a publish, if any did. They are
// later than those of the stage.
func (d *Driver) refreshed(ctx context.Context, rec record, secrets map[string]string) (record, error) {
	if len(secrets) == 0 {
		return d.ensure(ctx, rec)
	}
	rec.Volume.Secrets = secrets
	return d.stage(ctx, rec)
}

// spread gives the other mounts of a PersistentVolume the secrets that this one has now.
func (d *Driver) spread(ctx context.Context, rec record) {
	for _, other := range d.mountsOf(rec.handle()) {
		if other.Volume.ID == rec.Volume.ID || other.Phase != phaseStaged || !samePersistentVolume(other, rec) ||
			maps.Equal(other.Volume.Secrets, rec.Volume.Secrets) {
			continue
		}
		other.Volume.Secrets = rec.Volume.Secrets
		if err := d.records.put(other.Volume.ID, other); err != nil {
			d.log.Warn("secrets that were rotated are not kept", "volume", other.Volume, "error", err)
		}
		d.renew(ctx, other.Volume)
	}
}

// asked is what a publish of a staged volume asks to be shown. Attributes that are not given again are those of the
// stage.
func (d *Driver) asked(staged record, req *csi.NodePublishVolumeRequest) (record, error) {
	values, capability := req.GetVolumeContext(), req.GetVolumeCapability()
	if values["source"] == "" && values["dataset"] == "" {
		m, err := parseMountOptions(capability.GetMount().GetMountFlags(), capability.GetMount().GetVolumeMountGroup())
		if err != nil {
			return record{}, invalid(err)
		}
		asked := staged
		asked.Volume.Secrets = req.GetSecrets()
		if len(capability.GetMount().GetMountFlags()) > 0 || capability.GetMount().GetVolumeMountGroup() != "" {
			asked.Volume.UID, asked.Volume.GID, asked.SELinuxContext = m.uid, m.gid, m.seLinuxContext
		}
		return asked, nil
	}
	asked, err := d.describe(staged.Volume.ID, staged.Volume.Dir, values, capability, req.GetSecrets())
	asked.Namespace = values[namespaceKey]
	if asked.Namespace == "" {
		asked.Namespace = staged.Namespace
	}
	return asked, err
}

// attributesOf is the volume without its place, its secrets, and whose the files are.
func attributesOf(v handover.Volume) handover.Volume {
	v.ID, v.Dir, v.Secrets = "", "", nil
	v.UID, v.GID, v.FileMode, v.DirMode = 0, 0, 0, 0
	return v
}

// samePersistentVolume reports whether a publish is of the PersistentVolume that was staged. A PersistentVolume keeps
// its attributes, and is bound to the claim of one namespace.
func samePersistentVolume(staged, asked record) bool {
	return reflect.DeepEqual(attributesOf(staged.Volume), attributesOf(asked.Volume)) &&
		(staged.Namespace == "" || staged.Namespace == asked.Namespace)
}

// sameMount reports whether the mount of a staged volume shows what a publish asks for.
func sameMount(staged, asked record) bool {
	a, b := staged.Volume, asked.Volume
	return samePersistentVolume(staged, asked) && staged.SELinuxContext == asked.SELinuxContext &&
		a.UID == b.UID && a.GID == b.GID && a.FileMode == b.FileMode && a.DirMode == b.DirMode
}

// viewOf is the record of the view that shows what is asked for, with an id and a directory that all that ask for the
// same have. It has the secrets of the staged volume only where it is of the same PersistentVolume.
func viewOf(stateDir string, staged, asked record) (record, error) {
	view := record{
		Volume: asked.Volume, SELinuxContext: asked.SELinuxContext, Namespace: asked.Namespace,
		Ephemeral: true, Of: staged.Volume.ID,
	}
	view.Volume.ID, view.Volume.Dir, view.Volume.Secrets = staged.Volume.ID, "", nil
	if samePersistentVolume(staged, asked) {
		// It is of no other namespace, which the stage may not have known yet.
		view.Namespace = ""
	}
	text, err := json.Marshal(view)
	if err != nil {
		return record{}, errors.Join(errors.New("naming a view"), err)
	}
	view.Namespace, view.Volume.Secrets = asked.Namespace, asked.Volume.Secrets
	if len(view.Volume.Secrets) == 0 && samePersistentVolume(staged, asked) {
		view.Volume.Secrets = staged.Volume.Secrets
	}
	view.Volume.ID = viewID(staged.Volume.ID, text)
	view.Volume.Dir = filepath.Join(stateDir, ephemeralDir, fileName(view.Volume.ID))
	return view, nil
}

// viewID is the id of a view: that of the volume, shortened where it is long, and what tells its views apart.
func viewID(volume string, view []byte) string {
	sum := sha256.Sum256(view)
	mark := "@" + hex.EncodeToString(sum[:8])
	if most := handover.MaxID - len(mark); len(volume) > most {
		volume = strings.ToValidUTF8(volume[:most], "")
	}
	return volume + mark
}
