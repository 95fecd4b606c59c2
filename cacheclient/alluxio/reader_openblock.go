package alluxio

import (
	"context"

	"millrace.io/millrace/cacheclient"
)

// openBlock reads from a block file of this machine that is open already.
type openBlock struct{}

func (openBlock) name() string { return "open block" }

func (openBlock) read(_ context.Context, a *attempt) (cacheclient.Data, error) {
	b := a.f.c.held.get(a.id)
	if b == nil {
		return cacheclient.Data{}, errNext
	}
	return a.f.lend(b, a.span), nil
}

// lend gives bytes of a local block, and its reference, away.
func (f *file) lend(b *blockFile, s span) cacheclient.Data {
	f.c.count.hits.Add(1)
	f.c.count.bytesLocal.Add(s.n)
	return cacheclient.Data{Parts: [][]byte{b.bytes(s.off, s.n)}, Free: b.release, Origin: cacheclient.OriginCache}
}
