package kubenodes

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"

	"millrace.io/millrace/sanity/pki"
)

// Terminal opens the cluster to this machine's other terminals: the API answers on a port of the loopback until the
// context ends. The directory that it returns has kubectl, and a kubeconfig of an administrator; both go with the
// cluster.
func (c *Cluster) Terminal(ctx context.Context) (dir string, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	dir = c.file("terminal")
	if err := c.writeTerminal(dir, "https://"+listener.Addr().String()); err != nil {
		return "", errors.Join(err, listener.Close())
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	go c.forward(ctx, listener)
	return dir, nil
}

func (c *Cluster) writeTerminal(dir, server string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	file, err := c.pki.Kubeconfig("terminal", server, pki.Subject{User: "admin", Groups: []string{"system:masters"}})
	if err != nil {
		return err
	}
	return errors.Join(os.Rename(file, filepath.Join(dir, "kubeconfig")),
		os.Symlink(c.program("kubectl"), filepath.Join(dir, "kubectl")))
}

// forward connects each client with the API server, until the listener is closed.
func (c *Cluster) forward(ctx context.Context, listener net.Listener) {
	for {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = near.Close() }()
			far, err := c.control.Dial(ctx, "tcp", ControlPlane+":6443")
			if err != nil {
				return
			}
			defer func() { _ = far.Close() }()
			// Either end of a connection ends both.
			stop := context.AfterFunc(ctx, func() { _, _ = near.Close(), far.Close() })
			defer stop()
			done := make(chan struct{}, 2)
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					done <- struct{}{}
				}()
			}
			<-done
		}()
	}
}
