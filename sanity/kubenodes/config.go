package kubenodes

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PauseImage is the image that holds a pod's namespaces; a node needs it before any other.
const PauseImage = "millrace.test/pause:1"

// writeConfigs writes the configurations of all services.
func (c *Cluster) writeConfigs() error {
	files := map[string]string{
		"Corefile": c.corefile(),
		"dns.yaml": dnsObjects,
		// With a name that no node has it would wait for half a minute.
		"ctl/kube-proxy.yaml": c.proxyConfig(nodeName(0), ControlPlane),
	}
	for i := range c.options.Nodes {
		name, address := nodeName(i), nodeAddress(i).String()
		files[name+"/kube-proxy.yaml"] = c.proxyConfig(name, address)
		files[name+"/kubelet.yaml"] = c.kubeletConfig(name)
		files[name+"/containerd.toml"] = c.containerdConfig(name)
		files[name+"/cni/10-pods.conflist"] = networkConfig(podsOf(i).String())
	}
	for name, text := range files {
		path := c.file(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) proxyConfig(name, address string) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %s
clusterCIDR: %s
bindAddress: %s
clientConnection: {kubeconfig: %s}
# The table of connections is the whole kernel's.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
oomScoreAdj: 0
`, name, podNetwork, address, c.kubeconfig("kube-proxy"))
}

func (c *Cluster) kubeletConfig(name string) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %s}}
authorization: {mode: Webhook}
tlsCertFile: %s
tlsPrivateKeyFile: %s
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDomain: cluster.local
clusterDNS: [%s]
resolvConf: /etc/resolv.conf
volumePluginDir: /var/lib/kubelet/volumeplugins
failSwapOn: false
oomScoreAdj: 0
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%}
`, c.pki.File("ca.crt"), c.pki.File(name+".crt"), c.pki.File(name+".key"), dnsService)
}

func (c *Cluster) containerdConfig(name string) string {
	// Without CAP_SYS_RESOURCE no process may lower what a container is worth to the OOM killer.
	return fmt.Sprintf(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = %q
`, PauseImage, c.file(name+"/cni"))
}

// networkConfig routes everything, with no bridge on the node.
func networkConfig(pods string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","plugins":[
 {"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","dataDir":"/run/cni/networks","ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
`, pods)
}

// corefile has a server for each kind of names: in one, the template, which refuses at once all names that are not
// ours, would come before those that know them.
func (c *Cluster) corefile() string {
	var text strings.Builder
	fmt.Fprintf(&text, `cluster.local:53 in-addr.arpa:53 {
  bind %[1]s
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig %[2]s
    ttl 1
  }
}
.:53 {
  bind %[1]s
  hosts {
%[3]s    fallthrough
  }
  template IN ANY . {
    match [.].+[.]$
    rcode NXDOMAIN
    fallthrough
  }
}
`, ControlPlane, c.kubeconfig("admin"), indent(strings.TrimPrefix(c.hosts(), "127.0.0.1 localhost\n")))
	for _, name := range slices.Sorted(maps.Keys(c.options.Names)) {
		fmt.Fprintf(&text, "%s:53 {\n  bind %s\n  hosts {\n    %s %s\n  }\n}\n", name, ControlPlane,
			c.options.Names[name], name)
	}
	return text.String()
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
}

// dnsObjects lead the address that pods ask for names to the control plane's machine, so that names survive the loss of
// nodes.
const dnsObjects = `apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: ` + dnsService + `, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-ctl, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
endpoints: [{addresses: [` + ControlPlane + `], conditions: {ready: true}}]
`
