package driver

import (
	"context"
	"reflect"
	"slices"
	"time"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
)

// Kubelet's names for the pod that a volume is published for.
const (
	podNameKey      = "csi.storage.k8s.io/pod.name"
	podNamespaceKey = "csi.storage.k8s.io/pod.namespace"
	podUIDKey       = "csi.storage.k8s.io/pod.uid"
)

// mostLost bounds the pods that the agent is told of: more than a node has.
const mostLost = 1000

// lostSentence is what a volume says of itself that a pod has to be restarted for.
const lostSentence = "the mount that a running pod began with is lost, as driver, agent and keeper of the node were " +
	"gone at once; delete the pod, so that it begins with the present one"

// pod is a pod by its names.
type pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// podOf is the pod that a publish is for, as kubelet names it.
func podOf(values map[string]string) pod {
	return pod{Namespace: values[podNamespaceKey], Name: values[podNameKey], UID: values[podUIDKey]}
}

// lost is a mount that a pod still has and no process serves.
type lost struct {
	// Connection tells by its end that no pod has the mount any more; zero where the kernel does not tell.
	Connection mountpoint.Connection `json:"connection,omitzero"`
	// Since is when it was found, zero where there is none.
	Since time.Time `json:"since,omitzero"`
}

// is reports whether a pod still has the mount.
func (l lost) is() bool { return !l.Since.IsZero() && !l.Connection.Ended() }

// lost reports whether a pod of the volume has to be restarted.
func (r record) lost() bool {
	return slices.ContainsFunc(r.Targets, func(t target) bool { return t.Lost.is() })
}

// noteLost is the record of a volume that is about to be mounted anew, in which the targets are noted that show a mount
// of before: their pods were given that, and are not given another. After a start of the machine there are none.
func (d *Driver) noteLost(rec record) record {
	rec.Targets = slices.Clone(rec.Targets)
	for i := range rec.Targets {
		t := &rec.Targets[i]
		mounts, err := layers(t.Path)
		if err != nil || len(mounts) == 0 {
			continue
		}
		minor := mounts[len(mounts)-1].Minor
		t.Lost = lost{Connection: d.connection(minor), Since: time.Now().UTC().Truncate(time.Second)}
		d.log.Warn("a pod lost its mount, and has to be restarted", "volume", rec.Volume.ID,
			"namespace", t.Pod.Namespace, "pod", t.Pod.Name)
	}
	return rec
}

// told is what an agent was told of lost pods.
type told struct {
	generation int
	pods       []handover.LostPod
}

// tellLost tells the agent which pods have to be restarted, where that is news to it. Those that have ended, or were
// restarted, are no longer among them.
func (d *Driver) tellLost(ctx context.Context) error {
	generation, err := d.custody.await(ctx)
	if err != nil {
		return err
	}
	now := told{generation: generation}
	for _, id := range d.records.ids() {
		rec, ok := d.records.get(id)
		if !ok || !rec.lost() {
			continue
		}
		for _, t := range rec.Targets {
			if t.Lost.is() && t.Pod.UID != "" && len(now.pods) < mostLost {
				now.pods = append(now.pods, handover.LostPod{
					Volume: id, Namespace: t.Pod.Namespace, Name: t.Pod.Name, UID: t.Pod.UID, Since: t.Lost.Since,
				})
			}
		}
	}
	if reflect.DeepEqual(now, d.told) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	// One of an earlier build does not know the request, and tells nothing.
	if err := d.agent.Lost(ctx, now.pods); err != nil && handover.CodeOf(err) != handover.CodeInvalid {
		return err
	}
	d.told = now
	return nil
}
