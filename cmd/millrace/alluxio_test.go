package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/sanity/cluster"
)

// TestAlluxio uses the commands on a mount of a real cluster, and kills the process that serves it.
func TestAlluxio(t *testing.T) {
	r := newRig(t)
	c := cluster.ForTest(t, cluster.Config{Masters: 1, Workers: 1, UFS: r.source, BlockSize: 4 << 20})
	big, small := r.write("d/big b#%é.bin", 9<<20), r.write("small", 1000)
	long := time.Now().Add(-time.Hour)
	for _, name := range []string{"d/big b#%é.bin", "small"} {
		if err := os.Chtimes(filepath.Join(r.source, name), long, long); err != nil {
			t.Fatal(err)
		}
	}
	r.ok("mount", "--background", c.Address(), r.dir)
	r.same("d/big b#%é.bin", big)
	r.same("small", small)
	path := filepath.Join(r.dir, "d/big b#%é.bin")

	r.ok("warm", r.dir)
	blocks := r.blocks(path)
	if len(blocks) != 3 || blocks[2].Length != 1<<20 {
		t.Errorf("blocks: %+v", blocks)
	}
	for _, b := range blocks {
		if len(b.Where) != 1 || b.Where[0] != c.Workers()[0].Address() {
			t.Errorf("block at %d is at %v, the worker is %s", b.Offset, b.Where, c.Workers()[0].Address())
		}
	}
	st := r.status(r.dir)
	if st.Source != c.Address() || st.Capacity.Leader != c.Masters()[0].Address() || st.Capacity.Used != 9<<20+1000 ||
		len(st.Capacity.Levels) != 1 || !st.Capacity.Levels[0].Local {
		t.Errorf("status: %+v, capacity %+v", st, st.Capacity)
	}
	if table := r.ok("status").out; !strings.Contains(table, c.Masters()[0].Address()) ||
		!strings.Contains(table, "this machine") {
		t.Errorf("status: %s", table)
	}

	if freed := r.ok("free", path).out; !strings.HasPrefix(freed, "9.0 MiB of ") {
		t.Errorf("free says %q", freed)
	}
	for _, b := range r.blocks(path) {
		if len(b.Where) != 0 {
			t.Errorf("block at %d is still at %v", b.Offset, b.Where)
		}
	}

	_, stop := r.hold("d/big b#%é.bin")
	if err := unix.Kill(st.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.same("d/big b#%é.bin", big)
	if now := r.status(r.dir); now.PID == st.PID {
		t.Error("the process that was killed serves")
	}
	stop()
	r.ok("unmount", r.dir)
}

// blocks is the answer of blocks -o json.
func (r *rig) blocks(path string) []cacheclient.Block {
	r.t.Helper()
	var blocks []cacheclient.Block
	if err := json.Unmarshal([]byte(r.ok("blocks", "-o", "json", path).out), &blocks); err != nil {
		r.t.Fatal(err)
	}
	return blocks
}

// TestAlluxioRefused gives what cannot be mounted.
func TestAlluxioRefused(t *testing.T) {
	r := newRig(t)
	server := strings.TrimSuffix(strings.TrimPrefix(r.fileServer(), "http://"), "/")
	for _, wrong := range []struct {
		source string
		flags  []string
		code   int
		say    []string
	}{
		{"alluxio://", nil, commandline.ExitFailure, []string{"master", "host:port"}},
		{"alluxio://localhost", nil, commandline.ExitFailure, []string{`"localhost"`, "host:port"}},
		{"alluxio://localhost:x/", nil, commandline.ExitFailure, []string{`"x"`, "65535"}},
		{"alluxio://user@localhost:19998/", nil, commandline.ExitFailure, []string{"option user"}},
		{
			"alluxio://localhost:19998/",
			[]string{"--quota", "1Gi"},
			commandline.ExitUsage,
			[]string{"--quota", "workers"},
		},
		{
			"alluxio://localhost:19998/",
			[]string{"--option", "speed=high"},
			commandline.ExitFailure,
			[]string{`"speed"`, "short_circuit"},
		},
		{
			"alluxio://localhost:19998/",
			[]string{"--option", "tls=perhaps"},
			commandline.ExitFailure,
			[]string{"tls", `"perhaps"`, "true and false"},
		},
		{
			"alluxio://localhost:19998/",
			[]string{"--option", "password=x"},
			commandline.ExitFailure,
			[]string{"password", "secret"},
		},
		{"alluxio://127.0.0.1:1/", nil, commandline.ExitFailure, []string{"127.0.0.1:1", "refuses"}},
		{"alluxio://" + server + "/", nil, commandline.ExitFailure, []string{server, "web server"}},
	} {
		args := append([]string{"mount", "--timeout", "2s"}, wrong.flags...)
		r.refused(wrong.code, wrong.say, append(args, wrong.source, r.dir)...)
	}
}
