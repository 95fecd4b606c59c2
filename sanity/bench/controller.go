package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/sanity/kube"
	"millrace.io/millrace/sanity/session"
)

const (
	// manyDatasets are reconciled from empty, someDatasets are there while single ones change.
	manyDatasets = 1000
	someDatasets = 100
	// reconcileLimit bounds how long all of them take, changeLimit one change.
	reconcileLimit = 10 * time.Minute
	changeLimit    = 30 * time.Second
	// settling is how long after the last change the steady state is taken to begin, steady how long it is measured.
	settling = 20 * time.Second
	steady   = 60 * time.Second
	// datasetsNamespace has all Datasets.
	datasetsNamespace = "default"
)

// controllerGroups are measured against a real API server, without Kubernetes' own controllers and without nodes.
func controllerGroups() []group {
	return []group{
		{
			[]string{"controller-reconcile", "controller-steady", "controller-memory", "controller-restart"},
			(*bench).measureManyDatasets,
		},
		{[]string{"controller-change"}, (*bench).measureChanges},
	}
}

// controllerRig is an API server with our API, and a client of it.
type controllerRig struct {
	api    *kube.Server
	client client.WithWatch
	config string
}

// haveAPI builds the API server, if it is not there.
func (b *bench) haveAPI() error {
	controller.SetLog(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	_, err := kube.Binaries(b.session.Context(), false)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: %w", errAbsent, err)
	}
	return err
}

// startAPI starts an API server; stop ends it.
func (b *bench) startAPI() (*controllerRig, func(), error) {
	s, err := kube.Start(b.session.Context(), kube.Options{})
	if err != nil {
		return nil, nil, err
	}
	stop := func() {
		if err := s.Stop(); err != nil {
			fmt.Println("    the API server:", err)
		}
	}
	rig, err := b.controllerRig(s)
	if err != nil {
		stop()
		return nil, nil, err
	}
	return rig, stop, nil
}

func (b *bench) controllerRig(s *kube.Server) (*controllerRig, error) {
	if out, err := s.Kubectl(b.session.Context(), "apply", "--server-side", "-f",
		filepath.Join(b.cfg.deploy, "crd")); err != nil {
		return nil, fmt.Errorf("kubectl apply -f %s: %w: %s", b.cfg.deploy, err, out)
	}
	if out, err := s.Kubectl(b.session.Context(), "wait", "--for=condition=Established", "--timeout=60s", "crd",
		"--all"); err != nil {
		return nil, fmt.Errorf("kubectl wait: %w: %s", err, out)
	}
	rig := &controllerRig{api: s}
	var err error
	if rig.config, err = s.Kubeconfig("controller", "system:masters"); err != nil {
		return nil, err
	}
	admin, err := s.Admin()
	if err != nil {
		return nil, err
	}
	scheme, err := controller.Scheme()
	if err != nil {
		return nil, err
	}
	rig.client, err = client.NewWithWatch(admin, client.Options{Scheme: scheme})
	return rig, err
}

// makeDatasets makes the walkthrough's specs so many times.
func (r *controllerRig) makeDatasets(ctx context.Context, n int) error {
	quota := resource.MustParse("2Gi")
	for i := range n {
		meta := metav1.ObjectMeta{Namespace: datasetsNamespace, Name: fmt.Sprintf("hbase-%d", i)}
		d := &v1alpha1.Dataset{ObjectMeta: meta, Spec: v1alpha1.DatasetSpec{
			Mounts: []v1alpha1.Mount{{MountPoint: "https://mirror.example.org/apache/hbase/stable/", Name: "hbase"}},
		}}
		a := &v1alpha1.AlluxioRuntime{ObjectMeta: meta, Spec: v1alpha1.AlluxioRuntimeSpec{
			Replicas: 2, Master: v1alpha1.MasterSpec{ComponentSpec: v1alpha1.ComponentSpec{Replicas: 3}},
			TieredStore: v1alpha1.TieredStore{Levels: []v1alpha1.Level{{
				MediumType: v1alpha1.Memory, Path: "/dev/shm",
				Quota: &quota, High: "0.95", Low: "0.7",
			}}},
		}}
		if err := errors.Join(r.client.Create(ctx, d), r.client.Create(ctx, a)); err != nil {
			return err
		}
	}
	return nil
}

// controllerProcess is a running `millrace controller`.
type controllerProcess struct {
	*session.Process
	metrics string
}

func (b *bench) startController(r *controllerRig) (*controllerProcess, error) {
	l, err := new(net.ListenConfig).Listen(b.session.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &controllerProcess{metrics: l.Addr().String()}
	if err := l.Close(); err != nil {
		return nil, err
	}
	p.Process, err = b.session.Start(os.Stderr, b.program.Bin, "controller", "--kubeconfig", r.config,
		"--leader-elect=false",
		"--health", "127.0.0.1:0", "--metrics", p.metrics, "--log-level", "warn")
	return p, err
}

// requests is how many requests it has made to the API server.
func (p *controllerProcess) requests(ctx context.Context) (float64, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.metrics+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var sum float64
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "rest_client_requests_total{") {
			n, err := strconv.ParseFloat(lines.Text()[strings.LastIndexByte(lines.Text(), ' ')+1:], 64)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, lines.Err()
}

// applied waits until the objects of so many runtimes are applied.
func (r *controllerRig) applied(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, reconcileLimit)
	defer cancel()
	done := map[string]bool{}
	err := r.follow(ctx, &v1alpha1.AlluxioRuntimeList{}, func(o client.Object) bool {
		a, ok := o.(*v1alpha1.AlluxioRuntime)
		if !ok {
			return false
		}
		for _, c := range a.Status.Conditions {
			if c.Type == v1alpha1.Applied && c.Status == corev1.ConditionTrue && c.ObservedGeneration == a.Generation {
				done[a.Name] = true
			}
		}
		return len(done) == n
	})
	if err != nil {
		return fmt.Errorf("%d of %d runtimes are applied: %w", len(done), n, err)
	}
	return nil
}

// follow shows each change of objects to see, until it says that that is enough.
func (r *controllerRig) follow(ctx context.Context, list client.ObjectList, see func(client.Object) bool) error {
	w, err := r.client.Watch(ctx, list, client.InNamespace(datasetsNamespace))
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case event, ok := <-w.ResultChan():
			if !ok || event.Type == watch.Error {
				return fmt.Errorf("the watch has ended: %v", event.Object)
			}
			if o, is := event.Object.(client.Object); is && see(o) {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// measureManyDatasets has a controller find a thousand Datasets, in the first round only, and then nothing to do.
func (b *bench) measureManyDatasets(round int) error {
	if round > 0 {
		return nil
	}
	ctx := b.session.Context()
	rig, stop, err := b.startAPI()
	if err != nil {
		return err
	}
	defer stop()
	if err := rig.makeDatasets(ctx, manyDatasets); err != nil {
		return err
	}
	begun := time.Now()
	p, err := b.startController(rig)
	if err != nil {
		return err
	}
	defer func() { p.Kill() }()
	if err := rig.applied(ctx, manyDatasets); err != nil {
		return err
	}
	b.keep("controller-reconcile", millrace, time.Since(begun).Seconds())
	if err := b.measureSteady(ctx, p); err != nil {
		return err
	}
	b.keep("controller-memory", millrace, float64(privateMemory(p.Pid()))/1e6)
	before, err := rig.versions(ctx)
	if err != nil {
		return err
	}
	p.Kill()
	if p, err = b.startController(rig); err != nil {
		return err
	}
	if err := wait(ctx, settling); err != nil {
		return err
	}
	after, err := rig.versions(ctx)
	if err != nil {
		return err
	}
	changed := 0
	for name, version := range after {
		if before[name] != version {
			changed++
		}
	}
	b.keep("controller-restart", millrace, float64(changed))
	return nil
}

// measureSteady counts requests while nothing changes.
func (b *bench) measureSteady(ctx context.Context, p *controllerProcess) error {
	if err := wait(ctx, settling); err != nil {
		return err
	}
	before, err := p.requests(ctx)
	if err != nil {
		return err
	}
	if err := wait(ctx, steady); err != nil {
		return err
	}
	after, err := p.requests(ctx)
	b.keep("controller-steady", millrace, (after-before)/steady.Seconds())
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// versions are the resource versions of what the controller makes.
func (r *controllerRig) versions(ctx context.Context) (map[string]string, error) {
	found := map[string]string{}
	for kind, list := range map[string]client.ObjectList{
		"StatefulSet": &appsv1.StatefulSetList{}, "Service": &corev1.ServiceList{},
		"ConfigMap": &corev1.ConfigMapList{}, "Secret": &corev1.SecretList{},
		"PersistentVolumeClaim": &corev1.PersistentVolumeClaimList{},
		"PersistentVolume":      &corev1.PersistentVolumeList{},
	} {
		if err := r.client.List(ctx, list, client.HasLabels{"millrace.io/dataset"}); err != nil {
			return nil, err
		}
		err := meta.EachListItem(list, func(o runtime.Object) error {
			a, err := meta.Accessor(o)
			found[kind+" "+a.GetName()] = a.GetResourceVersion()
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// measureChanges changes one Dataset of a hundred after the other.
func (b *bench) measureChanges(int) error {
	ctx := b.session.Context()
	rig, stop, err := b.startAPI()
	if err != nil {
		return err
	}
	defer stop()
	if err := rig.makeDatasets(ctx, someDatasets); err != nil {
		return err
	}
	p, err := b.startController(rig)
	if err != nil {
		return err
	}
	defer p.Kill()
	if err := rig.applied(ctx, someDatasets); err != nil {
		return err
	}
	if err := wait(ctx, settling/4); err != nil {
		return err
	}
	took := make([]time.Duration, someDatasets)
	for i := range took {
		if took[i], err = rig.change(ctx, fmt.Sprintf("hbase-%d", i)); err != nil {
			return err
		}
	}
	slices.Sort(took)
	b.keep("controller-change", millrace, float64(took[(len(took)*99+99)/100-1])/float64(time.Millisecond))
	return nil
}

// change asks for more workers, and returns how long it takes until the StatefulSet is patched.
func (r *controllerRig) change(ctx context.Context, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	w, err := r.client.Watch(ctx, &appsv1.StatefulSetList{}, client.InNamespace(datasetsNamespace),
		client.MatchingFields{"metadata.name": name + "-worker"})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	begun := time.Now()
	target := &v1alpha1.AlluxioRuntime{ObjectMeta: metav1.ObjectMeta{Namespace: datasetsNamespace, Name: name}}
	if err := r.client.Patch(ctx, target, client.RawPatch("application/merge-patch+json",
		[]byte(`{"spec":{"replicas":5}}`))); err != nil {
		return 0, err
	}
	for {
		select {
		case event, ok := <-w.ResultChan():
			if !ok {
				return 0, errors.New("the watch has ended")
			}
			if set, is := event.Object.(*appsv1.StatefulSet); is && set.Spec.Replicas != nil &&
				*set.Spec.Replicas == 5 {
				return time.Since(begun), nil
			}
		case <-ctx.Done():
			return 0, fmt.Errorf("%s-worker is not patched: %w", name, ctx.Err())
		}
	}
}
