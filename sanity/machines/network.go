package machines

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// The interfaces: the switch, and each machine's card.
const (
	bridgeName = "br0"
	cardName   = "eth0"
)

// plugIn connects the machine with that first process to its switch: a pair of interfaces, one in each machine. Both go
// when either's namespace does.
func plugIn(c Config, first int) error {
	if c.Switch == 0 {
		return nil
	}
	at, err := netns.GetFromPid(c.Switch)
	if err != nil {
		return fmt.Errorf("the switch: %w", err)
	}
	defer func() { _ = at.Close() }()
	h, err := netlink.NewHandleAt(at)
	if err != nil {
		return fmt.Errorf("the switch: %w", err)
	}
	defer h.Close()
	bridge, err := h.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("the switch: %w", err)
	}
	port := netlink.NewLinkAttrs()
	port.Name, port.MasterIndex = "p-"+c.Name, bridge.Attrs().Index
	// The port of a machine that lost power this moment may still be there.
	if old, err := h.LinkByName(port.Name); err == nil {
		_ = h.LinkDel(old)
	}
	pair := &netlink.Veth{LinkAttrs: port, PeerName: cardName, PeerNamespace: netlink.NsPid(first)}
	if err := h.LinkAdd(pair); err != nil {
		return fmt.Errorf("network card: %w", err)
	}
	return h.LinkSetUp(pair)
}

// bringUp gives this machine its address and routes.
func bringUp(c Config) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	card, err := ownCard(c)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(card, &netlink.Addr{IPNet: ipNet(c.Address)}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(card); err != nil {
		return err
	}
	for _, r := range c.Routes {
		route := &netlink.Route{LinkIndex: card.Attrs().Index, Dst: ipNet(r.To)}
		if r.Gateway.IsValid() {
			route.Gw = r.Gateway.AsSlice()
		} else {
			route.Scope = netlink.SCOPE_LINK
		}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("route to %v: %w", r.To, err)
		}
	}
	return nil
}

// ownCard is the switch itself, or the card once it is plugged in.
func ownCard(c Config) (netlink.Link, error) {
	if c.Switch == 0 {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		return bridge, netlink.LinkAdd(bridge)
	}
	for range 500 {
		if card, err := netlink.LinkByName(cardName); err == nil {
			return card, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("no network card comes")
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
