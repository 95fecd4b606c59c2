package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/faultproxy"
)

// roundTrip is how far away the delayed worker is, there and back.
const roundTrip = 10 * time.Millisecond

// delayGroups are measured against a cluster whose worker is far away.
func delayGroups() []group {
	return []group{
		{[]string{"alluxio-remote-seq-delay"}, func(b *bench, round int) error { return b.readRemote("alluxio-remote-seq-delay", round) }},
		{[]string{"alluxio-client-seq-delay"}, func(b *bench, round int) error { return b.readByClients("alluxio-client-seq-delay", "", round) }},
	}
}

// startDelayed starts a cluster whose worker is reached through a proxy that delays, and warms what is read.
func (b *bench) startDelayed() error {
	fmt.Printf("starting an Alluxio master and a worker that is %v away\n", roundTrip)
	if err := b.startCluster(cluster.Config{Masters: 1, Workers: 1}, b.moveAway); err != nil {
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
	return nil
}

// moveAway has the worker listen at another address, and a proxy that delays at the one that it tells everybody.
func (b *bench) moveAway(c *cluster.Cluster) error {
	worker := c.Workers()[0]
	if err := worker.Kill(); err != nil {
		return err
	}
	const elsewhere = "127.0.0.1"
	site := filepath.Join(c.Dir(), worker.Name, "alluxio-site.properties")
	f, err := os.OpenFile(site, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	// Of two lines for a property the last one counts.
	_, err = fmt.Fprintf(f, "alluxio.worker.bind.host=%s\n", elsewhere)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	target := net.JoinHostPort(elsewhere, fmt.Sprint(worker.RPCPort()))
	if _, err := startChild(b.session, 1, delayMode, worker.Address(), target, (roundTrip / 2).String()); err != nil {
		return err
	}
	if err := worker.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.session.Context(), alluxioLimit)
	defer cancel()
	return c.WaitReady(ctx)
}

// delayMode is the first argument of a process that is a delaying proxy.
const delayMode = "delay"

// delayChild passes connections at an address on to another, each byte later by the delay in both directions, until its
// standard input ends. It prints its address.
func delayChild(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s takes an address, a target and a delay", delayMode)
	}
	delay, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	proxy, err := faultproxy.Start(context.Background(), args[0], args[1])
	if err != nil {
		return err
	}
	defer proxy.Close()
	proxy.Set(faultproxy.Faults{DelayUp: delay, DelayDown: delay})
	fmt.Println(proxy.Address())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
