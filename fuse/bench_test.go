package fuse

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkSequential reads 1 GiB from tmpfs natively and through the mount, by another
// process as it is done in life.
func BenchmarkSequential(b *testing.B) {
	if _, err := exec.LookPath("dd"); err != nil {
		b.Skip("needs dd:", err)
	}
	source, err := os.MkdirTemp("/dev/shm", "millrace-bench-") //nolint:usetesting // it must be on tmpfs
	if err != nil {
		b.Skip("needs /dev/shm:", err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(source) })
	const size = 1 << 30
	write(b, source, "big", make([]byte, size))
	for _, mode := range []string{"native", "copy", "passthrough"} {
		b.Run(mode, func(b *testing.B) {
			path := filepath.Join(source, "big")
			if mode != "native" {
				client := newLocalClient(source)
				client.whole.Store(true)
				client.local.Store(mode == "passthrough")
				_, dir := mountLocal(b, client, nil)
				path = filepath.Join(dir, "big")
				holdOpen(b, path)
			}
			b.SetBytes(size)
			var spent time.Duration
			for b.Loop() {
				b.StopTimer()
				if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
					b.Skip("needs root to drop the page cache:", err)
				}
				b.StartTimer()
				start := time.Now()
				if out, err := run(b, "dd", "if="+path, "of=/dev/null", "bs=1M", "status=none"); err != nil {
					b.Fatal(out, err)
				}
				spent += time.Since(start)
			}
			b.ReportMetric(float64(size)*float64(b.N)/spent.Seconds()/1e9, "GB/s")
		})
	}
}

// holdOpen keeps the file open, so that the client keeps its mapping of it.
func holdOpen(b *testing.B, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
}
