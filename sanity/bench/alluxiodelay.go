package main

import (
	"fmt"
	"time"

	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/faultproxy"
)

// roundTrip is how far away the delayed servers are, there and back.
const roundTrip = 10 * time.Millisecond

// delayGroups are measured against a cluster that is far away.
func delayGroups() []group {
	return []group{
		{[]string{"alluxio-remote-seq-delay"}, func(b *bench,
			round int,
		) error {
			return b.readRemote("alluxio-remote-seq-delay", round)
		}},
		{[]string{"alluxio-client-seq-delay"}, func(b *bench,
			round int,
		) error {
			return b.readByClients("alluxio-client-seq-delay", "", round)
		}},
	}
}

// startDelayed starts a cluster behind proxies, warms what is read, and then has the proxies delay.
func (b *bench) startDelayed() error {
	fmt.Printf("starting an Alluxio master and a worker that are %v away\n", roundTrip)
	if err := b.startCluster(cluster.Config{Masters: 1, Workers: 1, Proxies: true}); err != nil {
		return err
	}
	if err := b.showDirectory(inOne); err != nil {
		return err
	}
	for _, name := range []string{tinyName, bigName(0)} {
		if err := b.warmAlluxio(inOne + "/" + name); err != nil {
			return err
		}
	}
	for _, s := range b.alluxio.cluster.Servers() {
		s.Proxy().Set(faultproxy.Faults{DelayUp: roundTrip / 2, DelayDown: roundTrip / 2})
	}
	return nil
}
