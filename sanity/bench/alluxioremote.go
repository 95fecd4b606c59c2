package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/sanity/session"
)

// measureAlluxioRemote reads from the worker as from one of another machine.
func (b *bench) measureAlluxioRemote(round int) error {
	return b.readRemote("alluxio-remote-seq", round)
}

// readRemote reads the warm file through mounts that do not read the worker's files.
func (b *bench) readRemote(name string, round int) error {
	mounts := b.mountEach(round, name, remote)
	defer func() { closeAll(mounts) }()
	files := map[string]string{}
	for system, m := range mounts {
		files[system] = filepath.Join(m.dir, inOne, bigName(0))
	}
	b.measureWarmCase(warmRead{name: name, repeats: repeats, read: (*bench).readWarm}, round, files)
	return nil
}

// measureAlluxioClient reads from the worker without any mount.
func (b *bench) measureAlluxioClient(round int) error {
	return b.readByClients("alluxio-client-seq", "alluxio-client-cpu", round)
}

// readByClients reads the warm file by our client alone and by Alluxio's shell, and keeps the rate and, where it has a
// case, the processor time for each GB.
func (b *bench) readByClients(rate, cpu string, round int) error {
	for _, system := range b.turns(round, millrace, alluxioCLI) {
		read := b.readByClient
		if system == alluxioCLI {
			read = b.readByCLI
		}
		var rates, costs []float64
		for range repeats {
			got, err := read()
			if err != nil {
				b.failed(rate, system, err)
				break
			}
			rates = append(rates, b.megabytes()/got.Seconds)
			costs = append(costs, got.CPU/b.megabytes()*1000)
		}
		if len(rates) == 0 {
			continue
		}
		b.keep(rate, system, median(rates))
		if cpu != "" {
			b.keep(cpu, system, median(costs))
		}
	}
	return nil
}

// clientRead is one read of a file by a client.
type clientRead struct {
	Bytes int64 `json:"bytes"`
	// Seconds are from the open to the last byte, CPU the seconds of the process's processor time meanwhile.
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
}

// clientMode is the first argument of a process that reads a file by our client.
const clientMode = "client"

// readByClient reads the warm file by our client in a process of its own.
func (b *bench) readByClient() (clientRead, error) {
	var got clientRead
	self, err := os.Executable()
	if err != nil {
		return got, err
	}
	out, err := b.session.Run(readLimit, self, clientMode, b.alluxio.cluster.Address(), inOne+"/"+bigName(0))
	if err != nil {
		return got, err
	}
	if err := json.Unmarshal([]byte(out.Stdout), &got); err != nil {
		return got, err
	}
	if got.Bytes != b.cfg.size {
		return got, fmt.Errorf("the client read %d of %d bytes", got.Bytes, b.cfg.size)
	}
	return got, nil
}

// clientChild reads a file by our client, one MiB after the other, from a worker that is to it one of another machine,
// and prints a clientRead.
func clientChild(args []string) error {
	flags := flag.NewFlagSet(clientMode, flag.ExitOnError)
	_ = flags.Parse(args)
	addr, err := rpc.ParseAddress(flags.Arg(0))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readLimit)
	defer cancel()
	client, err := alluxio.New(ctx, alluxio.Config{Address: addr, NoShortCircuit: true})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	info, err := client.Stat(ctx, flags.Arg(1))
	if err != nil {
		return err
	}
	got, err := readWhole(ctx, client, info)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(got)
}

// readWhole opens a file and reads all of it.
func readWhole(ctx context.Context, client cacheclient.Client, info cacheclient.Info) (clientRead, error) {
	var got clientRead
	begin, before := time.Now(), processorTime(syscall.RUSAGE_SELF)
	f, err := client.Open(ctx, info)
	if err != nil {
		return got, err
	}
	defer func() { _ = f.Close() }()
	for got.Bytes < info.Size {
		d, err := f.Read(ctx, got.Bytes, 1<<20)
		if err != nil {
			return got, err
		}
		if d.Origin != cacheclient.OriginWorker {
			return got, fmt.Errorf("the bytes at %d come from %q and not from a worker", got.Bytes, d.Origin)
		}
		got.Bytes += int64(d.Len())
		d.Release()
	}
	got.Seconds = time.Since(begin).Seconds()
	got.CPU = processorTime(syscall.RUSAGE_SELF) - before
	return got, nil
}

// processorTime is what a process has used, in seconds.
func processorTime(who int) float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(who, &used); err != nil {
		return 0
	}
	return seconds(used.Utime) + seconds(used.Stime)
}

func seconds(t syscall.Timeval) float64 { return time.Duration(t.Nano()).Seconds() }

// readByCLI reads the warm file by `alluxio fs cat`, less what the same command takes for a tiny file, which is the
// start of Java.
func (b *bench) readByCLI() (clientRead, error) {
	tiny, err := b.cat(inOne + "/" + tinyName)
	if err != nil {
		return tiny, err
	}
	whole, err := b.cat(inOne + "/" + bigName(0))
	if err != nil {
		return whole, err
	}
	whole.Seconds -= tiny.Seconds
	whole.CPU -= tiny.CPU
	if whole.Seconds <= 0 || whole.CPU <= 0 {
		return whole, fmt.Errorf("a file of %d bytes takes no longer than a tiny one", b.cfg.size)
	}
	return whole, nil
}

// cat is `alluxio fs cat` of a file to nowhere, as one types it at a terminal, from a worker of another machine.
func (b *bench) cat(file string) (clientRead, error) {
	var got clientRead
	ctx, cancel := context.WithTimeout(b.session.Context(), readLimit)
	defer cancel()
	cmd := session.Command(ctx, "sh", "-c", "exec env "+b.alluxio.cluster.ShellCommand()+` cat "/$1" >/dev/null`, "sh",
		file)
	cmd.Env = append(os.Environ(), "JAVA_TOOL_OPTIONS=-Dalluxio.user.short.circuit.enabled=false -XX:+UseParallelGC")
	out, err := session.RunCmd(ctx, cmd)
	if err != nil {
		return got, err
	}
	got.Seconds = out.Took.Seconds()
	got.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return got, nil
}
