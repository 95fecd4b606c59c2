package wire_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// TestPinningTouchesTheFile holds what file_system_master.proto says of SetAttribute: a file that is pinned is the same
// file, by its id, but its time is another.
func TestPinningTouchesTheFile(t *testing.T) {
	b := newTarget(t)
	before := b.status()
	if _, err := b.files.SetAttribute(b.mctx, &wire.SetAttributePRequest{
		Path:    &b.path,
		Options: &wire.SetAttributePOptions{Pinned: proto.Bool(true), CommonOptions: common()},
	}); err != nil {
		t.Fatal(err)
	}
	after := b.status()
	if before.GetPinned() || !after.GetPinned() {
		t.Errorf("pinned before and after: %t, %t", before.GetPinned(), after.GetPinned())
	}
	if before.GetFileId() != after.GetFileId() {
		t.Errorf("the file's id before and after: %d, %d", before.GetFileId(), after.GetFileId())
	}
	if before.GetLastModificationTimeMs() >= after.GetLastModificationTimeMs() {
		t.Errorf("the file's time before and after: %d, %d", before.GetLastModificationTimeMs(),
			after.GetLastModificationTimeMs())
	}
	if after.GetTtl() != -1 || after.GetTtlAction() != wire.TtlAction_FREE {
		t.Errorf("the file's time to live is %d, then %v", after.GetTtl(), after.GetTtlAction())
	}
}
