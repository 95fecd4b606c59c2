package commandline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ParseListen reads an address to listen on.
func ParseListen(s string) (netip.AddrPort, error) {
	address, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{},
			errors.New("not an address: accepted are an IP address and a port, such as 127.0.0.1:9063 or [::1]:9063")
	}
	return address, nil
}

// ParseProbes reads the address of health and metrics; "" stands for none. Without a host it is all addresses, of
// whichever family the machine has.
func ParseProbes(s string) (string, error) {
	if s == "none" {
		return "", nil
	}
	whole := s
	if strings.HasPrefix(s, ":") {
		whole = "[::]" + s
	}
	if _, err := netip.ParseAddrPort(whole); err != nil {
		return "", errors.New("not an address: accepted are a port such as :9064, an IP address and a port such as " +
			"127.0.0.1:9064, or none")
	}
	return s, nil
}

// Listen listens on an address. An error names the flag that has it.
func Listen(ctx context.Context, flag, address string) (net.Listener, error) {
	return listen(ctx, new(net.ListenConfig), flag, address)
}

// ListenShared listens on an address that other processes of the same user may listen on, too, if all of them do so by
// it: the kernel gives each connection to one of them (socket(7), SO_REUSEPORT).
func ListenShared(ctx context.Context, flag, address string) (net.Listener, error) {
	return listen(ctx, &net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, set)
	}}, flag, address)
}

func listen(ctx context.Context, config *net.ListenConfig, flag, address string) (net.Listener, error) {
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		var why syscall.Errno
		if errors.As(err, &why) {
			err = why
		}
		return nil, fmt.Errorf("%s %s: %w", flag, address, err)
	}
	return l, nil
}
