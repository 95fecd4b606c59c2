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

	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// The reasons of Ready that are about sources.
const (
	// SourceUnreached says that a source does not answer.
	SourceUnreached = "SourceUnreached"
	// SourceUntrusted says that the certificate of a source is of no authority that is known.
	SourceUntrusted = "SourceUntrusted"
	// SourceRefuses says that a source does not accept the keys, or wants some.
	SourceRefuses = "SourceRefuses"
	// SourceFailed says that a source cannot be read for another reason.
	SourceFailed = "SourceFailed"
	// GatewaySilent says that the gateway to a source does not answer.
	GatewaySilent = "GatewaySilent"
)

// sourceReasons are those reasons by what came of asking.
var sourceReasons = map[gateway.State]string{
	gateway.Unreached: SourceUnreached, gateway.Untrusted: SourceUntrusted, gateway.Refused: SourceRefuses,
	gateway.Failed: SourceFailed,
	masters.Silent: GatewaySilent,
}

// ofSources reports whether a reason of Ready is about a source.
func ofSources(reason string) bool {
	for _, r := range sourceReasons {
		if r == reason {
			return true
		}
	}
	return false
}

// sourcesAsked reports whether there is a verdict on each source.
func sourcesAsked(sources []objects.Source, state masters.State) bool {
	for i := range sources {
		if _, asked := state.Sources[sources[i].Path]; !asked {
			return false
		}
	}
	return true
}

// ailing reports whether a source cannot be read, so that a Secret may be mended at any moment.
func ailing(state masters.State) bool {
	for _, v := range state.Sources {
		if v.State != gateway.Reached || v.Stale {
			return true
		}
	}
	return false
}

// sourceTrouble is the first source that cannot be read, in a sentence, and how many others; the zero verdict where
// there is none. cached are the bytes that are cached.
func sourceTrouble(sources []objects.Source, state masters.State) verdict {
	var first verdict
	more := 0
	for i := range sources {
		source := &sources[i]
		v, asked := state.Sources[source.Path]
		if !asked || v.State == gateway.Reached {
			continue
		}
		if first.reason != "" {
			more++
			continue
		}
		first = verdict{false, sourceReasons[v.State], sourceSentence(source, v)}
	}
	switch {
	case first.reason == "":
		return verdict{}
	case more == 1:
		first.message += "; another source cannot be read either"
	case more > 1:
		first.message += fmt.Sprintf("; %d other sources cannot be read either", more)
	}
	if state.Used > 0 {
		first.message += "; what is cached is served"
	}
	return first
}

// sourceSentence says what is wrong with a source, and names what to mend.
func sourceSentence(source *objects.Source, v masters.SourceVerdict) string {
	name := "the source " + source.Address
	if source.Name != "" {
		name += " of the mount " + source.Name
	}
	switch v.State {
	case gateway.Unreached:
		return fmt.Sprintf("%s is not reached: %s", name, v.Message)
	case gateway.Untrusted:
		return fmt.Sprintf("%s is not trusted: %s", name, v.Message)
	case gateway.Refused:
		switch {
		case source.Secrets == "":
			return fmt.Sprintf("%s refuses access, and the mount names no Secret with keys (encryptOptions): %s",
				name, v.Message)
		case v.Stale:
			return fmt.Sprintf("%s refuses the keys that the Secret %s had, and the new ones are on their way: %s",
				name, source.Secrets, v.Message)
		}
		return fmt.Sprintf("%s refuses the keys of the Secret %s: %s", name, source.Secrets, v.Message)
	case masters.Silent:
		return fmt.Sprintf("the gateway to %s beside the leading master does not answer: %s", strings.TrimPrefix(name,
			"the source "), v.Message)
	}
	return fmt.Sprintf("%s cannot be read: %s", name, v.Message)
}

// reads is the verdict as people are told it: where a source cannot be read, why. What the phase is decided by stays
// the verdict itself: Alluxio serves what it has.
func (v verdict) reads(source verdict) verdict {
	switch {
	case source.reason == "":
		return v
	case v.served:
		return source
	case v.reason == "NotMounted":
		return verdict{false, source.reason, source.message + "; " + v.message}
	}
	return v
}

// renewEvery is how long a kubelet is given to show a pod the new options.
const renewEvery = 5 * time.Second

// renew tells the pods with gateways that there are other options than those that they were told of last, by an
// annotation: a kubelet looks at a pod's Secrets again at once when the pod changes, and else within two minutes.
// D-242 says why.
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
		if err := r.Client.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch)); err != nil {
			errs = append(errs, fmt.Errorf("pod %s: %w", pod.Name, client.IgnoreNotFound(err)))
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
