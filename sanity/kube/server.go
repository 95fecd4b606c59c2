package kube

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"millrace.io/millrace/sanity/janitor"
	"millrace.io/millrace/sanity/pki"
)

// Options say what is to run.
type Options struct {
	// Controllers of kube-controller-manager to run, by their names there; none where it is empty.
	Controllers []string
}

// Usual are the controllers by which objects end, and StatefulSets get pods.
var Usual = []string{
	"garbage-collector-controller", "statefulset-controller", "persistentvolume-binder-controller",
	"persistentvolumeclaim-protection-controller", "persistentvolume-protection-controller", "namespace-controller",
}

// Server is a running API. Its methods belong to one goroutine, but for Config, Admin, Kubeconfig with a name of its
// own, and Kubectl.
type Server struct {
	options Options
	bin     string
	dir     string
	host    string
	// ports of etcd (clients, peers), the API and the controllers.
	etcdPort, peerPort, apiPort, managerPort int

	authority          *pki.Authority
	janitor            *janitor.Janitor
	etcd, api, manager *process
	// kubectlConfig writes the file that kubectl has, once.
	kubectlConfig func() (string, error)
}

// startPatience bounds how long a server takes to answer; a machine that builds beside it is slow.
const startPatience = 3 * time.Minute

// Start starts a server.
func Start(ctx context.Context, options Options) (*Server, error) {
	bin, err := Binaries(ctx, len(options.Controllers) > 0)
	if err != nil {
		return nil, err
	}
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "millrace-kube-*")
	if err != nil {
		return nil, err
	}
	j, err := janitor.Start(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s := &Server{
		options: options, bin: bin, dir: dir, janitor: j,
		host: fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)),
	}
	s.kubectlConfig = sync.OnceValues(func() (string, error) { return s.Kubeconfig("kubectl", "system:masters") })
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	var err error
	if s.authority, err = pki.New(s.dir); err != nil {
		return err
	}
	for _, name := range []string{"apiserver", "accounts"} {
		if err := s.authority.Write(name, pki.Subject{
			User: name, Names: []string{"localhost", "kubernetes.default.svc"},
			Addresses: []net.IP{net.ParseIP(s.host)},
		}); err != nil {
			return err
		}
	}
	for _, port := range []*int{&s.etcdPort, &s.peerPort, &s.apiPort, &s.managerPort} {
		if *port, err = s.freePort(ctx); err != nil {
			return err
		}
	}
	clients, peers := "http://"+s.at(s.etcdPort), "http://"+s.at(s.peerPort)
	s.etcd, err = launch(s.log(etcd), filepath.Join(s.bin, etcd),
		"--name=test", "--data-dir="+filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+clients, "--advertise-client-urls="+clients, "--listen-peer-urls="+peers,
		"--initial-advertise-peer-urls="+peers, "--initial-cluster=test="+peers)
	if err != nil {
		return err
	}
	if err := s.StartAPI(ctx); err != nil {
		return err
	}
	if len(s.options.Controllers) == 0 {
		return nil
	}
	return s.startManager()
}

// freePort finds a port that no process has, below those that the kernel gives away.
func (s *Server) freePort(ctx context.Context) (int, error) {
	var listen net.ListenConfig
	for range 100 {
		port := 20000 + rand.IntN(12000)
		l, err := listen.Listen(ctx, "tcp4", s.at(port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port on %s", s.host)
}

// at is an address of this server.
func (s *Server) at(port int) string { return net.JoinHostPort(s.host, itoa(port)) }

func (s *Server) log(program string) string { return filepath.Join(s.dir, program+".log") }
func (s *Server) file(name string) string   { return filepath.Join(s.dir, name) }

// StartAPI starts kube-apiserver, again after StopAPI, and returns when it answers.
func (s *Server) StartAPI(ctx context.Context) error {
	var err error
	s.api, err = launch(s.log(apiserver), filepath.Join(s.bin, apiserver), append(MutatingPolicies(),
		"--etcd-servers=http://"+s.at(s.etcdPort), "--bind-address="+s.host, "--secure-port="+itoa(s.apiPort),
		"--advertise-address="+s.host, "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=RBAC", "--allow-privileged=true",
		// Nothing makes service accounts for the pods that tests make.
		"--disable-admission-plugins=ServiceAccount",
		"--client-ca-file="+s.file("ca.crt"), "--tls-cert-file="+s.file("apiserver.crt"),
		"--tls-private-key-file="+s.file("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+s.file("accounts.crt"),
		"--service-account-signing-key-file="+s.file("accounts.key"), "--cert-dir="+s.dir,
		"--max-requests-inflight=1000", "--max-mutating-requests-inflight=1000", "--profiling=false")...)
	if err != nil {
		return err
	}
	config, err := s.Config("probe", "system:masters")
	if err != nil {
		return err
	}
	config.Timeout = 2 * time.Second
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		_, err := client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.api.ended:
			return fmt.Errorf("%s ended: %s", apiserver, lastLines(s.log(apiserver)))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", apiserver, err, lastLines(s.log(apiserver)))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// StopAPI kills kube-apiserver; what it has stored stays.
func (s *Server) StopAPI() error { return s.api.kill() }

func (s *Server) startManager() error {
	config, err := s.Kubeconfig("manager", "system:masters")
	if err != nil {
		return err
	}
	s.manager, err = launch(s.log(controllerManager), filepath.Join(s.bin, controllerManager),
		"--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--leader-elect=false",
		"--bind-address="+s.host, "--secure-port="+itoa(s.managerPort), "--cert-dir="+s.dir,
		"--controllers="+strings.Join(s.options.Controllers, ","), "--pvclaimbinder-sync-period=2s",
		"--kube-api-qps=500", "--kube-api-burst=1000")
	return err
}

// Config is for a client that is that user, in those groups.
func (s *Server) Config(user string, groups ...string) (*rest.Config, error) {
	cert, key, err := s.authority.Issue(pki.Subject{User: user, Groups: groups})
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host:            "https://" + s.at(s.apiPort),
		TLSClientConfig: rest.TLSClientConfig{CAData: s.authority.PEM, CertData: cert, KeyData: key},
		QPS:             -1,
	}, nil
}

// Admin is for a client that may do everything.
func (s *Server) Admin() (*rest.Config, error) { return s.Config("admin", "system:masters") }

// Kubeconfig writes a file for programs that are that user, in those groups, and names it.
func (s *Server) Kubeconfig(user string, groups ...string) (string, error) {
	return s.authority.Kubeconfig(user, "https://"+s.at(s.apiPort), pki.Subject{User: user, Groups: groups})
}

// KubectlPath is the program that Kubectl runs.
func (s *Server) KubectlPath() string { return filepath.Join(s.bin, kubectl) }

// Kubectl runs kubectl as an administrator, and returns what it says on both outputs.
func (s *Server) Kubectl(ctx context.Context, args ...string) (string, error) {
	config, err := s.kubectlConfig()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, s.KubectlPath(), append([]string{
		"--kubeconfig=" + config,
		"--cache-dir=" + s.file("kubectl"),
	}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// APIPID is the process id of kube-apiserver.
func (s *Server) APIPID() int { return s.api.cmd.Process.Pid }

// Stop ends all processes, and removes what they wrote.
func (s *Server) Stop() error {
	return errors.Join(s.manager.kill(), s.api.kill(), s.etcd.kill(), s.janitor.Clean())
}
