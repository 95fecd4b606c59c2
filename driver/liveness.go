package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/fuse/socket"
)

// headerTimeout is how long a client of the health address may take to send a request's header.
const headerTimeout = 5 * time.Second

// CheckHealth refuses an address that others than this machine reach, in the second half of a sentence that names it.
func CheckHealth(address string) error {
	if address == "" || strings.HasPrefix(address, "unix:") {
		if address == "" {
			return nil
		}
		_, err := EndpointPath(address)
		return err
	}
	if at, err := netip.ParseAddrPort(address); err != nil || !at.Addr().IsLoopback() {
		return errors.New("not an address of health: accepted are unix:///path, " +
			"and a loopback address with a port such as 127.0.0.1:9808")
	}
	return nil
}

// listenHealth makes the listener of the health address, nil where there is none.
func listenHealth(ctx context.Context, address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	if strings.HasPrefix(address, "unix:") {
		path, err := EndpointPath(address)
		if err != nil {
			return nil, err
		}
		return socket.Listen(path)
	}
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", address)
}

// serveHealth answers /healthz, which is about this process, and /readyz, which is about the volumes.
func (d *Driver) serveHealth(ctx context.Context, group *errgroup.Group, l net.Listener) {
	answer := func(check func() error) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := check(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			_, _ = fmt.Fprintln(w, "ok")
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", answer(d.alive))
	mux.Handle("GET /readyz", answer(d.ready))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		_ = server.Close()
		return nil
	})
}

// alive reports whether the CSI socket is served.
func (d *Driver) alive() error {
	if !d.serving.Load() {
		return errors.New("the CSI socket is not served")
	}
	return nil
}

// ready reports whether volumes can be staged, and those that were are in order.
func (d *Driver) ready() error {
	if err := d.alive(); err != nil {
		return err
	}
	if up, _ := d.custody.present(); !up {
		return errAway
	}
	if !d.adopted.Load() {
		return errors.New("the volumes of an earlier process are being taken over")
	}
	return nil
}
