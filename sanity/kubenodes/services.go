package kubenodes

import (
	"context"
	"strings"

	"millrace.io/millrace/sanity/kube"
	"millrace.io/millrace/sanity/machines"
)

// The services, by the names under which they are stopped and started again, and their logs are found.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	DNS               = "coredns"
	Proxy             = "kube-proxy"
	Containerd        = "containerd"
	Kubelet           = "kubelet"
)

// StartService starts a service of a machine, again after [machines.Machine.StopService].
func (c *Cluster) StartService(ctx context.Context, m *machines.Machine, service string) error {
	program := service
	if service != Containerd {
		program = c.program(service)
	}
	return m.StartService(ctx, service, program, c.arguments(m.Name(), service)...)
}

// arguments of a service on a machine.
func (c *Cluster) arguments(machine, service string) []string {
	switch service {
	case Etcd:
		// On memory, and on the loopback of a machine of its own.
		return []string{
			"--name=ctl", "--data-dir=/run/etcd", "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=ctl=http://127.0.0.1:2380",
		}
	case APIServer:
		return c.apiArguments()
	case ControllerManager:
		return []string{
			"--kubeconfig=" + c.kubeconfig(service), "--service-account-private-key-file=" + c.pki.File("accounts.key"),
			"--root-ca-file=" + c.pki.File("ca.crt"), "--use-service-account-credentials=true", "--leader-elect=false",
			"--bind-address=127.0.0.1", "--pvclaimbinder-sync-period=3s",
			"--flex-volume-plugin-dir=/run/flexvolumes",
			// A dead node is known after a quarter of a minute, and its pods are given up soon after, not in minutes.
			"--node-monitor-period=1s", "--node-monitor-grace-period=12s",
		}
	case Scheduler:
		return []string{"--kubeconfig=" + c.kubeconfig(service), "--leader-elect=false", "--bind-address=127.0.0.1"}
	case DNS:
		return []string{"-conf", c.file("Corefile")}
	case Proxy:
		return []string{"--config=" + c.file(machine+"/kube-proxy.yaml")}
	case Containerd:
		return []string{"--config", c.file(machine + "/containerd.toml")}
	case Kubelet:
		return []string{
			"--config=" + c.file(machine+"/kubelet.yaml"), "--kubeconfig=" + c.kubeconfig(machine),
			"--hostname-override=" + machine, "--node-ip=" + c.addressOf(machine), "--v=2",
		}
	}
	return nil
}

func (c *Cluster) apiArguments() []string {
	admission := append([]string{"NodeRestriction"}, c.options.Admission...)
	return append([]string{
		"--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address=0.0.0.0",
		"--advertise-address=" + ControlPlane,
		"--tls-cert-file=" + c.pki.File("apiserver.crt"), "--tls-private-key-file=" + c.pki.File("apiserver.key"),
		"--client-ca-file=" + c.pki.File("ca.crt"), "--cert-dir=/run/apiserver",
		"--service-account-key-file=" + c.pki.File("accounts.crt"),
		"--service-account-signing-key-file=" + c.pki.File("accounts.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=" + serviceNetwork,
		"--authorization-mode=Node,RBAC", "--allow-privileged=true",
		"--kubelet-client-certificate=" + c.pki.File("apiserver-kubelet.crt"),
		"--kubelet-client-key=" + c.pki.File("apiserver-kubelet.key"),
		"--kubelet-certificate-authority=" + c.pki.File("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--enable-aggregator-routing=true", "--profiling=false",
		"--enable-admission-plugins=" + strings.Join(admission, ","),
	}, kube.MutatingPolicies()...)
}
