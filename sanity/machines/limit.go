package machines

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Limit bounds what the machine sends, in bytes a second; 0 is no limit.
func (m *Machine) Limit(rate uint64) error {
	at, err := netns.GetFromPid(m.PID())
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	h, err := netlink.NewHandleAt(at)
	if err != nil {
		return err
	}
	defer h.Close()
	card, err := h.LinkByName(cardName)
	if err != nil {
		return err
	}
	attrs := netlink.QdiscAttrs{
		LinkIndex: card.Attrs().Index, Handle: netlink.MakeHandle(1, 0),
		Parent: netlink.HANDLE_ROOT,
	}
	if rate == 0 {
		return h.QdiscDel(&netlink.Tbf{QdiscAttrs: attrs})
	}
	// The bucket holds more than the kernel sends at once; the queue a twentieth of a second.
	const bucket = 256 << 10
	queue := &netlink.Tbf{
		QdiscAttrs: attrs, Rate: rate,
		Buffer: uint32(float64(bucket) / float64(rate) * 1e6 * netlink.TickInUsec()), Limit: uint32(rate/20) + bucket,
	}
	if err := h.QdiscReplace(queue); err != nil {
		return fmt.Errorf("%s: limit: %w", m.config.Name, err)
	}
	return nil
}
