package rpc

import (
	"context"
	"errors"
)

// Role is what a master says of itself.
type Role string

// The roles. A master that does not answer has none.
const (
	Leading Role = "leader"
	Standby Role = "standby"
)

// Roles asks all masters at once what they are, for at most probePatience. The result has those that answered, by their
// addresses.
func (m *Masters) Roles(ctx context.Context) map[string]Role {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	type answer struct {
		addr string
		role Role
	}
	answers := make(chan answer, len(m.endpoints))
	for _, e := range m.endpoints {
		go func() {
			switch err := e.leads(ctx); {
			case err == nil:
				answers <- answer{e.addr, Leading}
			case errors.Is(err, errStandby):
				answers <- answer{e.addr, Standby}
			default:
				answers <- answer{addr: e.addr}
			}
		}()
	}
	roles := make(map[string]Role)
	for range m.endpoints {
		if a := <-answers; a.role != "" {
			roles[a.addr] = a.role
		}
	}
	return roles
}
