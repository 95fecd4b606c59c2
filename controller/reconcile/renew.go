package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// renewEvery is how long a kubelet is given to show a pod the new options.
const renewEvery = 5 * time.Second

// renew tells the pods what their gateways are to serve, by an annotation: a kubelet looks at a pod's Secrets again at
// once when the pod changes, and else within two minutes. D-242 and D-252 say why.
func (r *Reconciler) renew(ctx context.Context, w *world, hash string) error {
	if hash == "" {
		return nil
	}
	var errs []error
	now := time.Now()
	for i := range w.pods {
		pod := &w.pods[i]
		value, due := renewal(pod.Annotations[objects.SourcesHash], hash, stale(w.clusters), now)
		if !due || pod.DeletionTimestamp != nil {
			continue
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid": pod.UID, "annotations": map[string]string{objects.SourcesHash: value},
		}})
		if err != nil {
			return err
		}
		target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}}
		err = r.Client.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch))
		if client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("pod %s: %w", pod.Name, err))
		}
	}
	return errors.Join(errs...)
}

// stale reports whether a gateway has not read the options yet that it should have.
func stale(state masters.State) bool {
	for _, v := range state.Sources {
		if v.Stale {
			return true
		}
	}
	return false
}

// renewal is the value that the annotation of a pod is to have, and whether it is to be written: the hash of the
// options and when it was told, in seconds. It is told again where a gateway has other options after a while.
func renewal(have, hash string, stale bool, now time.Time) (value string, due bool) {
	value = hash + "." + strconv.FormatInt(now.Unix(), 10)
	told, at, _ := strings.Cut(have, ".")
	if told != hash {
		return value, true
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	return value, stale && (err != nil || now.Sub(time.Unix(seconds, 0)) >= renewEvery)
}
