package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/socket"
)

// TestStatusOfAProcessThatDiesMeanwhile has a process end between the registry and its answer, and another one serve
// its mount: that one is asked. A mount that nothing serves any more is told as such.
func TestStatusOfAProcessThatDiesMeanwhile(t *testing.T) {
	runtime := t.TempDir()
	if err := os.Chmod(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MILLRACE_RUNTIME_DIR", runtime)
	registry := agent.OpenRegistry(runtime)
	other := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	next := agent.Entry{Dir: "/m", Socket: filepath.Join(runtime, "next.sock"), PID: other.Process.Pid}
	answers, err := socket.Listen(next.Socket)
	if err != nil {
		t.Fatal(err)
	}
	serving := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode([]agent.MountStatus{{Dir: "/m", State: agent.StateServing, PID: next.PID}})
	})}
	go func() { _ = serving.Serve(answers) }()
	defer func() { _ = serving.Close() }()

	dying := agent.Entry{Dir: "/m", Socket: filepath.Join(runtime, "dying.sock"), PID: os.Getpid()}
	breaks, err := socket.Listen(dying.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = breaks.Close() }()
	asked := server{socket: dying.Socket, listed: []agent.Entry{dying}}
	for _, tc := range []struct {
		name  string
		then  agent.Entry
		state string
	}{
		{"it is replaced", next, agent.StateServing}, {"it is not", dying, agent.StateUnresponsive},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				c, err := breaks.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				if err := registry.Put(tc.then); err != nil {
					t.Error(err)
				}
				_ = c.Close()
			}()
			mounts, _ := asked.mounts(t.Context())
			<-ended
			if len(mounts) != 1 || mounts[0].State != tc.state {
				t.Errorf("%+v", mounts)
			}
		})
	}
}
