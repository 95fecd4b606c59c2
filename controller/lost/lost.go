// Package lost tells of pods whose mount no agent serves any more: those that ran when driver, agent and keeper of
// their node were gone at once. They have to be restarted, and only the driver knows them. It tells the node's agent,
// which answers every caller, so that neither needs rights on the API server.
//
// The agents are found by the name of their Service, which has the address of each. All are asked every few seconds. A
// pod gets a warning when it is first named, and again each half hour for as long as it runs. The Dataset of its claim
// is looked at, and gets a condition.
//
// D-247 says why.
package lost

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/objects"
)

const (
	// every is the time between two rounds, and askTime what an agent gets to answer.
	every   = 5 * time.Second
	askTime = 2 * time.Second
	// parallel is how many agents are asked at once.
	parallel = 32
	// mostBytes bounds an answer.
	mostBytes = 1 << 20
	// sayAgain is when a warning is repeated: Kubernetes keeps Events for an hour.
	sayAgain = 30 * time.Minute
)

// Reason is the reason of the Event and of the condition.
const Reason = "MountLost"

// Pod is a pod that has to be restarted, as an agent names it.
type Pod struct {
	Volume    string `json:"volume"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// Watcher asks the agents. Its exported fields are set before the first call.
type Watcher struct {
	// Agents is host:port of the agents' Service, whose name has an address for each.
	Agents string
	// Client reads pods and volumes.
	Client client.Reader
	Events events.EventRecorder
	// Notify is called with a Dataset of which other pods are to be restarted than before.
	Notify func(types.NamespacedName)
	Log    *slog.Logger
	// Every is the time between two rounds; 5 s if 0.
	Every time.Duration

	// mu guards byDataset.
	mu sync.Mutex
	// byDataset are the names of the pods by the Dataset whose claim they use.
	byDataset map[types.NamespacedName][]string

	// said is when a pod was warned of last, by its UID and volume. The goroutine of Start alone uses it.
	said map[[2]string]time.Time
	// unheard says that the agents could not be found, which is logged once.
	unheard bool
}

// Of are the names of the pods of a Dataset that have to be restarted.
func (w *Watcher) Of(key types.NamespacedName) []string {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byDataset[key]
}

// Start asks until the context ends.
func (w *Watcher) Start(ctx context.Context) error {
	w.said = make(map[[2]string]time.Time)
	tick := time.NewTicker(cmp.Or(w.Every, every))
	defer tick.Stop()
	for {
		w.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// round asks all agents once. What one that does not answer said before is not kept: its next answer says the same.
func (w *Watcher) round(ctx context.Context) {
	named, err := w.ask(ctx)
	if err != nil {
		if !w.unheard && ctx.Err() == nil {
			w.Log.Warn("the agents are not found, and lost mounts not told of", "agents", w.Agents, "error", err)
		}
		w.unheard = true
		return
	}
	w.unheard = false
	now := time.Now()
	found := make(map[types.NamespacedName][]string)
	for _, p := range named {
		if !w.runs(ctx, p) {
			continue
		}
		if key, ok := w.dataset(ctx, p.Volume); ok && key.Namespace == p.Namespace {
			found[key] = append(found[key], p.Name)
		}
		w.warn(p, now)
	}
	w.keep(found)
	for id, at := range w.said {
		if now.Sub(at) > 2*sayAgain {
			delete(w.said, id)
		}
	}
}

// ask gives what all agents say.
func (w *Watcher) ask(ctx context.Context) ([]Pod, error) {
	host, port, err := net.SplitHostPort(w.Agents)
	if err != nil {
		return nil, err
	}
	finding, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(finding, host)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards all
	var all []Pod
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, address := range addresses {
		group.Go(func() error {
			pods, err := askOne(ctx, net.JoinHostPort(address, port))
			if err != nil {
				// One that is being replaced, or whose node is gone.
				w.Log.Debug("an agent does not tell", "agent", address, "error", err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, pods...)
			return nil
		})
	}
	return all, group.Wait()
}

// askOne asks one agent.
func askOne(ctx context.Context, address string) ([]Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/lost", http.NoBody)
	if err != nil {
		return nil, err
	}
	answer, err := asker.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		// It is of an earlier build.
		return nil, nil
	default:
		return nil, fmt.Errorf("it answers %s", answer.Status)
	}
	var pods []Pod
	return pods, json.NewDecoder(io.LimitReader(answer.Body, mostBytes)).Decode(&pods)
}

// asker follows no redirect, and knows no proxy: agents are in the cluster.
var asker = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// runs reports whether the pod is there and is to stay.
func (w *Watcher) runs(ctx context.Context, p Pod) bool {
	pod := &corev1.Pod{}
	err := w.Client.Get(ctx, types.NamespacedName{Namespace: p.Namespace, Name: p.Name}, pod)
	if err != nil {
		if !apierrors.IsNotFound(err) {
			w.Log.Debug("a pod cannot be looked at", "namespace", p.Namespace, "pod", p.Name, "error", err)
		}
		return false
	}
	return string(pod.UID) == p.UID && pod.DeletionTimestamp == nil &&
		pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// dataset is the Dataset that the volume was made for, if it was for one.
func (w *Watcher) dataset(ctx context.Context, volume string) (types.NamespacedName, bool) {
	v := &corev1.PersistentVolume{}
	if err := w.Client.Get(ctx, types.NamespacedName{Name: volume}, v); err != nil {
		return types.NamespacedName{}, false
	}
	key := types.NamespacedName{Namespace: v.Labels[objects.NamespaceLabel], Name: v.Labels[objects.DatasetLabel]}
	return key, key.Name != ""
}

// warn writes the pod's Event, unless that was done lately.
func (w *Watcher) warn(p Pod, now time.Time) {
	id := [2]string{p.UID, p.Volume}
	if last, ok := w.said[id]; ok && now.Sub(last) < sayAgain {
		return
	}
	w.said[id] = now
	w.Log.Warn("a pod lost its mount", "namespace", p.Namespace, "pod", p.Name, "volume", p.Volume)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID)}}
	w.Events.Eventf(pod, nil, corev1.EventTypeWarning, Reason, "LookAtMounts",
		"the pod cannot read the volume %s any more: its mount is lost, as driver, agent and keeper of the node were "+
			"gone at once. Delete the pod; the one that replaces it reads: kubectl -n %s delete pod %s",
		p.Volume, p.Namespace, p.Name)
}

// keep takes what was found, and has each Dataset looked at of which that is news.
func (w *Watcher) keep(found map[types.NamespacedName][]string) {
	w.mu.Lock()
	before := w.byDataset
	for _, names := range found {
		slices.Sort(names)
	}
	w.byDataset = found
	w.mu.Unlock()
	for key, names := range found {
		if !slices.Equal(names, before[key]) {
			w.Notify(key)
		}
	}
	for key := range before {
		if found[key] == nil {
			w.Notify(key)
		}
	}
}
