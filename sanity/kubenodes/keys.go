package kubenodes

import (
	"net"

	"millrace.io/millrace/sanity/pki"
)

// makeKeys makes the certificates and kubeconfigs of all services.
func (c *Cluster) makeKeys() error {
	server := pki.Subject{
		User: "kube-apiserver",
		Names: []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
			"localhost", ctl,
		},
		Addresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(ControlPlane), net.ParseIP(apiService)},
	}
	certificates := map[string]pki.Subject{
		"apiserver":         server,
		"apiserver-kubelet": {User: "kube-apiserver-kubelet", Groups: []string{"system:masters"}},
		"accounts":          {User: "accounts"},
	}
	users := map[string]pki.Subject{
		"admin":                   {User: "admin", Groups: []string{"system:masters"}},
		"kube-controller-manager": {User: "system:kube-controller-manager"},
		"kube-scheduler":          {User: "system:kube-scheduler"},
		"kube-proxy":              {User: "system:kube-proxy"},
	}
	for i := range c.options.Nodes {
		name := nodeName(i)
		users[name] = pki.Subject{User: "system:node:" + name, Groups: []string{"system:nodes"}}
		certificates[name] = pki.Subject{
			User: "system:node:" + name, Groups: []string{"system:nodes"}, Names: []string{name},
			Addresses: []net.IP{net.ParseIP("127.0.0.1"), nodeAddress(i).AsSlice()},
		}
	}
	for name, subject := range certificates {
		if err := c.pki.Write(name, subject); err != nil {
			return err
		}
	}
	for name, subject := range users {
		if _, err := c.pki.Kubeconfig(name, apiURL, subject); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) kubeconfig(user string) string { return c.pki.File(user + ".kubeconfig") }
