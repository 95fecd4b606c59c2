package driver

import (
	"log/slog"
	"os"
	"testing"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
)

// TestRecordsOfEarlierBuildsAreIdentified: a record without the connection of a mount that is there gets it, for good;
// one of another mount, or of none, is left as it is.
func TestRecordsOfEarlierBuildsAreIdentified(t *testing.T) {
	if !mountpoint.HasSysAdmin() {
		t.Skip("needs root: mount(2)")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse:", err)
	}
	records, err := openShelf[record](t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &Driver{records: records, log: slog.New(slog.DiscardHandler)}
	dir := t.TempDir()
	rec := record{Volume: handover.Volume{ID: "v", Dir: dir}, Minor: 1 << 19}
	if got, err := d.identified(rec); err != nil || got.Connection != (mountpoint.Connection{}) {
		t.Errorf("nothing is mounted: %+v, %v", got.Connection, err)
	}
	device, err := mountpoint.Attach(t.Context(), mountpoint.Options{Dir: dir, Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = device.Close() }()
	defer func() { _ = mountpoint.Detach(dir, mountpoint.Lazily) }()
	if got, err := d.identified(rec); err != nil || got.Connection != (mountpoint.Connection{}) {
		t.Errorf("another mount is there: %+v, %v", got.Connection, err)
	}
	if rec.Minor, err = mountedDevice(dir); err != nil {
		t.Fatal(err)
	}
	want, err := mountpoint.ConnectionOf(rec.Minor)
	if err != nil {
		t.Skip("needs the FUSE control file system:", err)
	}
	got, err := d.identified(rec)
	if kept, ok := records.get("v"); err != nil || got.Connection != want || !ok || kept.Connection != want {
		t.Errorf("%+v, kept %+v, want %+v: %v", got.Connection, kept.Connection, want, err)
	}
	other := rec
	other.Connection = mountpoint.Connection{Minor: rec.Minor, Inode: 1, Made: 1}
	if got, err := d.identified(other); err != nil || got.Connection != other.Connection {
		t.Errorf("a connection that is known became %+v, %v", got.Connection, err)
	}
}
