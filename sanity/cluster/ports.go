package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// The ports that servers get lie below those that the kernel gives to whoever asks for any, so that nobody is given
// one of them by chance between our reservation and the server's start.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// reservation holds ports of one address until a server is about to take them.
type reservation struct {
	host      string
	ports     []int
	listeners []net.Listener
}

// reserve finds n free ports on the address.
func reserve(ctx context.Context, host string, n int) (*reservation, error) {
	r := &reservation{host: host}
	var listen net.ListenConfig
	var last error
	for range 200 {
		if len(r.ports) == n {
			return r, nil
		}
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		l, err := listen.Listen(ctx, "tcp4", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		r.ports = append(r.ports, port)
		r.listeners = append(r.listeners, l)
	}
	r.release()
	return nil, fmt.Errorf("no free ports on %s: %w", host, last)
}

// release lets the ports go.
func (r *reservation) release() {
	for _, l := range r.listeners {
		_ = l.Close()
	}
	r.listeners = nil
}

// loopback is a random address of 127.0.0.0/8 that is not 127.0.x.x, which others use.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}
