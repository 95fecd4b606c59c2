package kubenodes

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"millrace.io/millrace/sanity/machines"
)

// The networks: 10.200.0.0/24 of the machines, 10.201.N.0/24 of the pods of node N, 10.96.0.0/16 of Services.
const (
	// ControlPlane is the address of the machine ctl.
	ControlPlane = "10.200.0.1"

	apiURL         = "https://" + ControlPlane + ":6443"
	serviceNetwork = "10.96.0.0/16"
	podNetwork     = "10.201.0.0/16"
	apiService     = "10.96.0.1"
	dnsService     = "10.96.0.10"
	ctl            = "ctl"
)

func nodeName(i int) string        { return fmt.Sprintf("node%d", i+1) }
func nodeAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 200, 0, byte(11 + i)}) }
func podsOf(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 201, byte(i + 1), 0}), 24)
}

// hosts is the /etc/hosts of all machines.
func (c *Cluster) hosts() string {
	var text strings.Builder
	fmt.Fprintf(&text, "127.0.0.1 localhost\n%s %s\n", ControlPlane, ctl)
	for i := range c.options.Nodes {
		fmt.Fprintf(&text, "%v %s\n", nodeAddress(i), nodeName(i))
	}
	for _, name := range slices.Sorted(maps.Keys(c.options.Names)) {
		fmt.Fprintf(&text, "%s %s\n", c.options.Names[name], name)
	}
	return text.String()
}

// controlRoutes are those of the control plane's machine. That for Services is only there for the look-up to succeed,
// which comes before kube-proxy's redirection. There is no default: what would leave the cluster is refused here.
func controlRoutes(nodes int) []machines.Route {
	routes := []machines.Route{{To: netip.MustParsePrefix(serviceNetwork)}}
	for i := range nodes {
		routes = append(routes, machines.Route{To: podsOf(i), Gateway: nodeAddress(i)})
	}
	return routes
}

// nodeRoutes are those of node i.
func nodeRoutes(i, nodes int) []machines.Route {
	routes := []machines.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr(ControlPlane)}}
	for other := range nodes {
		if other != i {
			routes = append(routes, machines.Route{To: podsOf(other), Gateway: nodeAddress(other)})
		}
	}
	return routes
}
