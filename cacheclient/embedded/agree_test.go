package embedded_test

import (
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
)

// agreeing is a store that finds out, when it is asked, that all versions of one size are one.
type agreeing struct {
	*fakeStore
	settled bool
}

func (a *agreeing) Same(was, now cacheclient.Info) bool { return a.settled && was.Size == now.Size }

// TestOneVersionDescribedTwice revalidates a file that a listing described otherwise than the source does now, where
// the source knows that both are of one version: it has not changed.
func TestOneVersionDescribedTwice(t *testing.T) {
	under := &agreeing{fakeStore: newFakeStore()}
	under.put("file", []byte("content"), "response")
	c, err := embedded.New(under, embedded.Config{Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	listed := cacheclient.Identify(cacheclient.Info{Path: "file", Size: 7, Version: "listed"})
	if err := c.Revalidate(t.Context(), listed); err == nil {
		t.Error("another version is taken for the same")
	}
	under.settled = true
	if err := c.Revalidate(t.Context(), listed); err != nil {
		t.Error(err)
	}
	listed.Size++
	if err := c.Revalidate(t.Context(), cacheclient.Identify(listed)); err == nil {
		t.Error("another size is taken for the same")
	}
}
