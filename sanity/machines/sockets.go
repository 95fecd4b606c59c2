package machines

import (
	"context"
	"net"
	"runtime"

	"github.com/vishvananda/netns"
)

// Dial connects from within the machine's network. The address is one of an IP.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := m.enterNetwork(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// enterNetwork runs a function on a thread in the machine's network: a socket stays in the network in which it was
// made.
func (m *Machine) enterNetwork(do func() error) error {
	there, err := netns.GetFromPid(m.PID())
	if err != nil {
		return err
	}
	defer func() { _ = there.Close() }()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and takes the network with it.
		runtime.LockOSThread()
		if err := netns.Set(there); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

// Listen listens within the machine's network. The address is one of an IP.
func (m *Machine) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var listener net.Listener
	err := m.enterNetwork(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return listener, err
}
