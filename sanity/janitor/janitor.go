// Package janitor removes what a test leaves, however its process ends: a shell that waits for the end of a pipe, which
// the kernel closes for a process that was killed, unmounts and removes.
package janitor

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// script reads mountpoints, a line each, until its standard input ends, which it does when the cluster stops or
// the process that started it is gone in whatever way. Then it unmounts them and removes the directories in its
// arguments, again while servers that were killed this moment may still write. A mount that stays is not descended
// into.
const script = `
mounts=
while IFS= read -r m; do mounts="$mounts$m
"; done
printf %s "$mounts" | while IFS= read -r m; do
  fusermount3 -u -z -- "$m" || umount -l -- "$m"
done
try=0
while [ $try -lt 50 ]; do
  try=$((try + 1))
  rm -rf --one-file-system -- "$@"
  left=
  for d; do [ ! -e "$d" ] || left=1; done
  [ -n "$left" ] || exit 0
  sleep 0.2
done
exit 1
`

// Janitor is a shell that outlives this process by as long as cleaning up takes.
type Janitor struct {
	cmd    *exec.Cmd
	orders io.WriteCloser
}

// Start starts a janitor for the directories.
func Start(dirs ...string) (*Janitor, error) {
	//nolint:noctx // it ends with its standard input, and must not end before
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "janitor"}, dirs...)...)
	// A session of its own: what a terminal or a test runner sends to our process group is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the janitor: %w", err)
	}
	return &Janitor{cmd: cmd, orders: orders}, nil
}

// Mounted tells the janitor of a mountpoint that is to be unmounted at the end, should it still be mounted.
func (j *Janitor) Mounted(dir string) error {
	_, err := fmt.Fprintln(j.orders, dir)
	return err
}

// Clean has it clean up, and waits for that.
func (j *Janitor) Clean() error {
	_ = j.orders.Close()
	ended := make(chan error, 1)
	go func() { ended <- j.cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("the directories could not be removed: %w", err)
		}
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("the janitor does not end")
	}
}
