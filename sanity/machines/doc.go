// Package machines runs what looks like several machines on this one: each a set of Linux namespaces (mount, process,
// network, host name, IPC, cgroup) with a first process, a disk of its own, a /dev/shm of its own, and a network card
// on a switch.
//
// # Life of a machine
//
// [Start] starts this very program again, as the machine's supervisor (supervise.go), in a session of its own. The
// supervisor makes the machine's cgroups, moves into them, and starts this program a third time in new namespaces
// (boot.go): that one, the machine's first process, mounts what a node needs, waits for its network card, and then
// starts and stops services as it is told (services.go). The supervisor plugs the card in (network.go): a pair of
// interfaces between the machine's namespace and that of the machine which is the switch. [Machine.PowerCut] kills the
// first process, and with it the kernel kills all others; [Machine.Boot] starts the machine again with the disk that it
// had.
//
// So that a program can be started again as these, its main, or its TestMain, begins with
//
//	machines.Main()
//
// # What is left behind
//
// Nothing, however the program ends. A supervisor waits for the end of a pipe, which the kernel closes when the program
// is gone in whatever way; then it ends the machine and removes its cgroups and its disk. Mounts, interfaces and
// firewall rules die with the namespaces. The host's own network, mounts and kernel settings are never touched.
package machines
