package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// free makes the place of the link free: a link to a cluster that is gone goes, and one to a cluster that runs is an
// error.
func free(link string) error {
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(link); err == nil {
		return fmt.Errorf("%s is there: another make nodes runs in this directory; end it with Ctrl-C, or name "+
			"another place with -link", link)
	}
	return closed(link)
}

// closed removes the link.
func closed(link string) error {
	err := os.Remove(link)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// next tells the commands that come next.
func next(link string) string {
	at, here := link, "."
	if path, err := filepath.Abs(link); err == nil {
		at = path
	}
	if path, err := os.Getwd(); err == nil {
		here = path
	}
	return fmt.Sprintf(`
The cluster runs until Ctrl-C. Next, in another terminal, in %[2]s:

  export KUBECONFIG=%[1]s/kubeconfig PATH=%[1]s:$PATH
  make deploy
  kubectl apply -f deploy/examples/hbase && kubectl wait --for=condition=complete job/copy --timeout=5m && kubectl logs job/copy

`, at, here)
}
