package commandline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// ParseListen reads an address to listen on.
func ParseListen(s string) (netip.AddrPort, error) {
	address, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}, errors.New("not an address: accepted are an IP address and a port, such as 127.0.0.1:9063 or [::1]:9063")
	}
	return address, nil
}

// ParseListenOrNone reads an address to listen on, or "none", for which it gives an invalid one.
func ParseListenOrNone(s string) (netip.AddrPort, error) {
	if s == "none" {
		return netip.AddrPort{}, nil
	}
	address, err := ParseListen(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w, or none", err)
	}
	return address, nil
}

// Listen listens on an address. An error names the flag that has it.
func Listen(ctx context.Context, flag, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		var why syscall.Errno
		if errors.As(err, &why) {
			err = why
		}
		return nil, fmt.Errorf("%s %s: %w", flag, address, err)
	}
	return l, nil
}
