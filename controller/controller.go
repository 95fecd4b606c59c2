// Package controller runs the controller: it makes Datasets and AlluxioRuntimes into highly available Alluxios, volumes
// and claims, loads data for DataLoads, and gives claims of StorageClasses their volumes.
//
// The rooms, from the top: this file wires a manager (leader election, health, metrics); reconcile watches and acts;
// objects says what there is to be; masters speaks to Alluxio; nodes takes the startup taint off nodes; claims makes
// volumes of StorageClasses; lost tells of pods whose mount is lost; api has the types that users write.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/claims"
	"millrace.io/millrace/controller/load"
	"millrace.io/millrace/controller/lost"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/nodes"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/controller/reconcile"
)

// Config says how to run.
type Config struct {
	// API is how the API server is reached.
	API *rest.Config
	// Settings are the operator's. Its Namespace is the controller's own, where the lease is.
	Settings objects.Settings
	// NetworkDir has the network's settings, as a Secret of the operator's; none if "".
	NetworkDir string
	// Watch is the only namespace to serve; all if "".
	Watch string
	// Elect has several controllers agree on one that works.
	Elect bool
	// Taint is the key of the taint that nodes lose when the driver is ready there; nodes are not looked at if "".
	Taint string
	// Agents is host:port of the agents' Service, which are asked for pods that lost their mount; none are if "".
	Agents string
	// CheckClass tells what the driver refuses of a StorageClass's parameters and mount options; claims of classes are not
	// looked at if nil.
	CheckClass func(parameters map[string]string, mountOptions []string) error
	// Health and Metrics are host:port; none if "".
	Health, Metrics string
	Log             *slog.Logger

	// Addresses of masters where they are not those planned, and Fast and Slow, which bound the pause between two
	// questions to them, are for tests.
	Addresses  func(key types.NamespacedName, planned []string) []string
	Fast, Slow time.Duration
	// SecretAge is how long a user's Secret is believed; 15 s if 0.
	SecretAge time.Duration
}

// The lease, and how long it takes until another controller takes over.
const (
	leaseName     = "millrace-controller"
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// Scheme knows all types that the controller handles.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	return s, errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s))
}

// SetLog has the libraries write to a log. It is called once, before anything runs: they have one for the whole
// process.
func SetLog(log *slog.Logger) {
	klog.SetSlogLogger(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
}

// Run runs a controller until the context ends, or it is no leader any more, which is an error.
func Run(ctx context.Context, c Config) error {
	mgr, err := newManager(c)
	if err != nil {
		return err
	}
	clusters := &masters.Clusters{Log: c.Log, Fast: c.Fast, Slow: c.Slow}
	r := &reconcile.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clusters: clusters, Settings: c.Settings,
		NetworkDir: c.NetworkDir, Namespace: c.Watch, Addresses: c.Addresses, SecretAge: c.SecretAge,
		Events: mgr.GetEventRecorder("millrace"), Log: c.Log,
	}
	if c.Agents != "" {
		r.Lost = &lost.Watcher{
			Agents: c.Agents, Client: mgr.GetClient(), Events: r.Events, Log: c.Log, Every: c.Slow,
		}
	}
	if err := r.Setup(ctx, mgr); err != nil {
		return err
	}
	if err := reconcile.Metrics(ctx, mgr.GetCache()); err != nil {
		return err
	}
	loads := &load.Reconciler{
		Client: mgr.GetClient(), Clusters: clusters, Events: mgr.GetEventRecorder("millrace"), Log: c.Log, Life: ctx,
	}
	if err := loads.Setup(mgr); err != nil {
		return err
	}
	if c.Taint != "" {
		taints := &nodes.Reconciler{Client: mgr.GetClient(), Taint: c.Taint, Driver: c.Settings.Driver, Log: c.Log}
		if err := taints.Setup(mgr); err != nil {
			return err
		}
	}
	if c.CheckClass != nil {
		volumes := &claims.Reconciler{
			Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Driver: c.Settings.Driver, Namespace: c.Watch,
			CheckClass: c.CheckClass,
			Events:     mgr.GetEventRecorder("millrace"), Log: c.Log,
		}
		if err := volumes.Setup(ctx, mgr); err != nil {
			return err
		}
	}
	if r.Lost != nil {
		if err := mgr.Add(manager.RunnableFunc(r.Lost.Start)); err != nil {
			return err
		}
	}
	if err := mgr.Add(manager.RunnableFunc(clusters.Start)); err != nil {
		return err
	}
	c.Log.Info("the controller starts", "namespace", c.Watch, "elect", c.Elect)
	return mgr.Start(ctx)
}

func newManager(c Config) (ctrl.Manager, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	api := rest.CopyConfig(c.API)
	if api.QPS == 0 {
		// The number of workers bounds it, and the API server has fairness of its own.
		api.QPS = -1
	}
	lease, renew, retry := leaseDuration, renewDeadline, retryPeriod
	caches := reconcile.CacheOptions()
	caches.ByObject[&corev1.Node{}] = nodes.Kept()
	if c.CheckClass != nil {
		claims.Widen(caches.ByObject, c.Settings.Driver)
	}
	if c.Watch != "" {
		caches.DefaultNamespaces = map[string]cache.Config{c.Watch: {}}
	}
	again := true
	mgr, err := ctrl.NewManager(api, ctrl.Options{
		Scheme: scheme, Cache: caches, Logger: logr.FromSlogHandler(c.Log.Handler()),
		LeaderElection: c.Elect, LeaderElectionID: leaseName, LeaderElectionNamespace: c.Settings.Namespace,
		LeaderElectionReleaseOnCancel: true, LeaseDuration: &lease, RenewDeadline: &renew, RetryPeriod: &retry,
		HealthProbeBindAddress: orNone(c.Health), Metrics: metricsserver.Options{BindAddress: orNone(c.Metrics)},
		// Several run in one process in tests.
		Controller: ctrlconfig.Controller{SkipNameValidation: &again},
	})
	if err != nil {
		return nil, fmt.Errorf("the API server: %w", err)
	}
	return mgr, errors.Join(mgr.AddHealthzCheck("alive", healthz.Ping), mgr.AddReadyzCheck("alive", healthz.Ping))
}

func orNone(address string) string {
	if address == "" {
		return "0"
	}
	return address
}
