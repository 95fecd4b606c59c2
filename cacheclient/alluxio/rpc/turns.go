package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
)

// Calls take answers of a usual length side by side. One that is longer is asked for once more, when no other of its
// kind is under way: what servers send is in memory as a whole. D-260 says more.
const (
	// usualAnswer is what an answer of a master usually has at the most, in bytes, and largestAnswer what it may have: a
	// file of 100,000 blocks takes as much.
	usualAnswer   = 4 << 20
	largestAnswer = 32 << 20
	// usualBatch and largestMessage are the same of one batch of a listing, which has 10,000 files. Alluxio's own
	// clients take as much.
	usualBatch     = 8 << 20
	largestMessage = 100 << 20
)

// inquire makes a call that changes nothing and whose answer may be long; f gives it the option that bounds the answer.
func (m *Masters) inquire(
	ctx context.Context, f func(ctx context.Context, conn *grpc.ClientConn, most grpc.CallOption) error,
) error {
	attempt := func(most int) error {
		return m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
			return f(ctx, conn, grpc.MaxCallRecvMsgSize(most))
		})
	}
	return m.byTurns(ctx, attempt(usualAnswer), func() error { return attempt(largestAnswer) })
}

// byTurns is err, unless that says that an answer was longer than usual: then it is what again returns, which is called
// alone.
func (m *Masters) byTurns(ctx context.Context, err error, again func() error) error {
	if !errors.Is(err, errLong) {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	switch turn := m.turn.Acquire(waiting, 1); {
	case ctx.Err() != nil:
		return fmt.Errorf("wait for another long answer of the masters: %w", ctx.Err())
	case turn != nil:
		return &Unreachable{Addr: strings.Join(m.addrs, ","), Why: "sends other long answers", busy: true}
	}
	defer m.turn.Release(1)
	return again()
}
