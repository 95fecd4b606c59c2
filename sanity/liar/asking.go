package liar

import (
	"context"
	"time"

	"millrace.io/millrace/fuse/agent"
)

// ask asks the mount's socket about the file that readers look at, and has it warm and free files, as people and
// operators do beside programs that read. Refusals are of no interest here: that each answer comes in time, and what
// readers see meanwhile, is.
func (r *run) ask(ctx context.Context) {
	dice := r.plan.Seed.Dice("ask")
	client := agent.Dial(r.mount.socket)
	defer client.Close()
	for wait(ctx, time.Duration(dice.IntN(20))*time.Millisecond) {
		f := r.hot.Load()
		if f == nil {
			continue
		}
		path := r.mount.dir + "/" + f.Path
		end := r.watch.begin("asking the socket", f.Path)
		switch dice.IntN(8) {
		case 0:
			_, _ = client.Mounts(ctx)
		case 1:
			_, _ = client.Free(ctx, path)
		default:
			_, _ = client.Blocks(ctx, path)
		}
		end()
	}
}
