package machines

import "net/netip"

// Config is what a machine is like.
type Config struct {
	// Name is its host name.
	Name string
	// Disk is a directory for what survives a power cut: its /var/lib, /var/log and /srv. It may not lie below those, /run
	// or /dev. Work is a directory around it which the machine sees under the same path, as it sees the host's root.
	Disk, Work string
	// Cgroup is the name of the cgroup, in each hierarchy, below which all machines have theirs.
	Cgroup string
	// Shm is the size of /dev/shm in bytes.
	Shm int64
	// Hosts is the content of /etc/hosts.
	Hosts string
	// Address is the machine's, with the length of the network's prefix.
	Address netip.Prefix
	// Switch is the process of the machine whose network card plugs into; 0 makes this machine the switch.
	Switch int
	// Routes lead to networks behind other machines. A gateway that is not valid stands for the machine's own card.
	Routes []Route
}

// Route says by which gateway a network is reached.
type Route struct {
	To      netip.Prefix
	Gateway netip.Addr
}
