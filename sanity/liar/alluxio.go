package liar

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"millrace.io/millrace/sanity/liar/fakealluxio"
)

// falsehood is how often an answer of the fake Alluxio about what is not honest is a lie.
const falsehood = 0.4

// cluster is an Alluxio whose master and worker lie about a directory that changes.
type cluster struct {
	*directory
	fake  *fakealluxio.Fake
	asked Ordinals
}

// newAlluxio writes the world as a directory, and starts an Alluxio that has it mounted.
func newAlluxio(p Plan, w *World) (Source, error) {
	below, err := writeDirectory(p, w)
	if err != nil {
		return nil, err
	}
	c := &cluster{directory: below}
	tier := filepath.Join(p.Dir, "blocks")
	if err := os.Mkdir(tier, 0o755); err != nil {
		return nil, err
	}
	c.fake, err = fakealluxio.Start(fakealluxio.Config{
		Root: c.root, Tier: tier, BlockSize: 1 << 20,
		Source: pick(p.Seed.Dice("under"), "", "-"), Host: pick(p.Seed.Dice("host"), "localhost", "elsewhere"),
		Dice: c.dice,
	})
	if err != nil {
		return nil, fmt.Errorf("the fake Alluxio: %w", err)
	}
	return c, nil
}

// Mount is the master's address.
func (c *cluster) Mount() (source string, flags []string) { return c.fake.Address(), nil }

// Close ends the master and the worker.
func (c *cluster) Close() error { return c.fake.Close() }

// Keeps reports whether the worker has all of a file.
func (c *cluster) Keeps(path string) bool { return c.fake.Keeps(path) }

// dice are draws for one answer; nil tells the truth.
func (c *cluster) dice(call, path string) *rand.Rand {
	f, _, isFile := c.world.Look(path)
	d, isDir := c.world.Dir(path)
	if !c.world.Lies() || isFile && f.Honest || isDir && d.Honest {
		return nil
	}
	dice := c.plan.Seed.Dice(call, path, c.asked.Next(call+" "+path))
	if !chance(dice, falsehood) {
		return nil
	}
	c.world.Tell(path, call)
	return dice
}
