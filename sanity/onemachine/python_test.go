package onemachine_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"millrace.io/millrace/sanity/session"
)

// examples is where the scripts are that users start from.
const examples = "../../deploy/examples"

// python returns a way to run a script of the examples, and skips the test where a module that it imports is not there,
// with the command that installs it.
func python(t *testing.T, install string, modules ...string) func(r *rig, script string, args ...string) string {
	t.Helper()
	needs(t, "python3")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	// make setup puts them there.
	env := append(os.Environ(), "PYTHONPATH="+filepath.Join(cache, "millrace", "python"),
		"PYTHONPYCACHEPREFIX="+t.TempDir())
	try := exec.CommandContext(t.Context(), "python3", "-c", "import "+strings.Join(modules, ", "))
	try.Env = env
	if out, err := try.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Skipf("python3 cannot import %s (%s): %s", strings.Join(modules, " and "), lines[len(lines)-1], install)
	}
	return func(r *rig, script string, args ...string) string {
		t.Helper()
		cmd := session.Command(r.session.Context(), "python3",
			append([]string{filepath.Join(examples, script)}, args...)...)
		cmd.Env = env
		out, err := session.RunCmd(r.session.Context(), cmd)
		if err != nil {
			t.Fatalf("%v: %s", err, out.Stderr)
		}
		return out.Stdout
	}
}

// tensors writes a safetensors file: a header's length, the header in JSON, the bytes. It returns what read.py says of
// it.
func tensors(t *testing.T, name string, rows ...int) string {
	t.Helper()
	const columns = 1 << 10
	header, data := map[string]any{}, []byte{}
	var said strings.Builder
	for i, n := range rows {
		content := random(byte(i), n*columns*2)
		called := fmt.Sprintf("layer.%d.weight", i)
		header[called] = map[string]any{
			"dtype": "I16", "shape": []int{n, columns},
			"data_offsets": []int{len(data), len(data) + len(content)},
		}
		data = append(data, content...)
		fmt.Fprintf(&said, "%s int16 %dx%d %08x\n", called, n, columns, crc32.ChecksumIEEE(content))
	}
	described, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	described = append(described, bytes.Repeat([]byte(" "), -len(described)&7)...)
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(described)))
	write(t, filepath.Dir(name), filepath.Base(name), append(append(file, described...), data...))
	return said.String()
}

// TestSafetensors runs the example on a mount, cold and warm, and compares what it reads with what was written.
func TestSafetensors(t *testing.T) {
	needsMount(t)
	t.Parallel()
	run := python(t, "make setup", "numpy", "safetensors")
	source := t.TempDir()
	want := tensors(t, filepath.Join(source, "model.safetensors"), 8<<10, 1, 3<<10)
	r := newRig(t, source)
	for range 2 {
		if got := run(r, "safetensors/read.py", filepath.Join(r.dir, "model.safetensors")); got != want {
			t.Errorf("the example reads\n%s, and the file has\n%s", got, want)
		}
	}
	r.unmount()
}

// TestLoader runs the PyTorch example on a mount, whose two epochs must have read the same files.
func TestLoader(t *testing.T) {
	needsMount(t)
	t.Parallel()
	run := python(t, "pip install torch, 3 GB", "torch")
	source := t.TempDir()
	for i := range 40 {
		write(t, source, fmt.Sprintf("class%d/%d.bin", i%4, i), random(byte(i), i<<14))
	}
	r := newRig(t, source)
	got := run(r, "pytorch/loader.py", r.dir, "2")
	if !strings.Contains(got, "epoch 1: 40 files, 12.8 MB") || !strings.Contains(got, "epoch 2: 40 files, 12.8 MB") {
		t.Errorf("the example says %s", got)
	}
	r.unmount()
}
