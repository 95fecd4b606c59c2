package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
)

func TestFindings(t *testing.T) {
	setuid := func(mode fs.FileMode) fs.FileInfo {
		path := filepath.Join(t.TempDir(), "f")
		if err := errors.Join(os.WriteFile(path, nil, 0o755), os.Chmod(path, 0o755|mode)); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	prune := `PRUNEFS="NFS ` + strings.ToUpper(mountpoint.FSType) + `"`
	cases := []struct {
		name string
		got  finding
		want verdict
		say  string
	}{
		{"new kernel", kernelFinding("6.18.4-foo"), verdictOK, "passthrough and resend"},
		{"6.9", kernelFinding("6.9.0"), verdictOK, ""},
		{"6.8", kernelFinding("6.8.12"), verdictWarn, "neither FUSE passthrough nor resend"},
		{"5.15", kernelFinding("5.15.0-1-generic"), verdictWarn, ""},
		{"4.19", kernelFinding("4.19.9"), verdictFail, "too old"},
		{"no kernel", kernelFinding("bsd"), verdictWarn, "cannot be understood"},
		{"device", deviceFinding(nil), verdictOK, ""},
		{"no device", deviceFinding(&fs.PathError{Err: unix.ENOENT}), verdictFail, "--device"},
		{"denied device", deviceFinding(&fs.PathError{Err: unix.EPERM}), verdictFail, "this user"},
		{"broken device", deviceFinding(&fs.PathError{Err: unix.EIO}), verdictFail, "input/output"},
		{"root without fusermount", fusermountFinding(true, nil), verdictOK, "not needed"},
		{"user without fusermount", fusermountFinding(false, nil), verdictFail, "not installed"},
		{"fusermount not setuid", fusermountFinding(false, setuid(0)), verdictFail, "not setuid"},
		{"fusermount", fusermountFinding(false, setuid(fs.ModeSetuid)), verdictOK, ""},
		{"admin", adminFinding(true), verdictOK, ""},
		{"no admin", adminFinding(false), verdictWarn, "by copying"},
		{"mount refused", confinementFinding(true, "2", "0", unix.EPERM), verdictFail, "mount(2) is refused"},
		{"no_new_privs", confinementFinding(false, "0", "1", nil), verdictFail, "no_new_privs"},
		{"filter", confinementFinding(true, "2", "1", nil), verdictOK, "passes it"},
		{"unconfined", confinementFinding(false, "0", "0", unix.EPERM), verdictOK, "neither"},
		{"few files", filesFinding(1024), verdictWarn, "1024"},
		{"many files", filesFinding(1 << 20), verdictOK, ""},
		{"few pages", pagesFinding(32), verdictWarn, "is 32"},
		{"pages", pagesFinding(256), verdictOK, ""},
		{"fixed pages", pagesFinding(-1), verdictOK, "256"},
		{"fusectl", controlFinding(true), verdictOK, ""},
		{"no fusectl", controlFinding(false), verdictWarn, ""},
		{"no updatedb", updatedbFinding(nil, fs.ErrNotExist), verdictOK, ""},
		{"updatedb prunes", updatedbFinding([]byte("X=1\n  PRUNEFS = "+strings.TrimPrefix(prune, "PRUNEFS=")+"\n"),
			nil), verdictOK, ""},
		{"updatedb scans", updatedbFinding([]byte(`PRUNEFS="NFS fuse.sshfs"`), nil), verdictWarn, "PRUNEFS"},
		{"updatedb without types", updatedbFinding([]byte("# PRUNEFS=\"x\"\n"), nil), verdictWarn, "has no PRUNEFS"},
		{"tier", tierFinding(tierState{dir: "/t", memory: true, size: 1 << 40, free: 1 << 39}), verdictOK, "in memory"},
		{"tier on disk", tierFinding(tierState{dir: "/t", size: 1 << 40, free: 1 << 39}), verdictWarn, "its disk"},
		{
			"small tier", tierFinding(tierState{dir: "/t", memory: true, size: 64 << 20, free: 64 << 20}), verdictWarn,
			"64 MiB",
		},
		{"no tier", tierFinding(tierState{dir: "/t", err: fs.ErrPermission}), verdictFail, "cannot be used"},
	}
	for _, c := range cases {
		if c.got.Result != c.want || !strings.Contains(c.got.Found, c.say) ||
			(c.got.Mend == "") != (c.want == verdictOK) {
			t.Errorf("%s: %+v, want %s and %q", c.name, c.got, c.want, c.say)
		}
	}
}

// The command that is given for updatedb does what it says.
func TestUpdatedbIsMended(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "updatedb.conf")
	for _, text := range []string{"PRUNEFS=\"NFS afs\"\n", "A=b\nPRUNEFS = \"NFS\"\n", "A=b\n"} {
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		f := updatedbFinding([]byte(text), nil)
		if out, err := exec.Command("sh", "-c", strings.ReplaceAll(f.Mend, "/etc/updatedb.conf",
			conf)).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", f.Mend, err, out)
		}
		mended, _ := os.ReadFile(conf)
		if f := updatedbFinding(mended, nil); f.Result != verdictOK {
			t.Errorf("%q became %q: %+v", text, mended, f)
		}
	}
}

func TestMountFindings(t *testing.T) {
	findings := mountFindings([]mountProbe{
		{dir: "/well", readAhead: 4096},
		{dir: "/unknown", readAhead: -1},
		{dir: "/dead", stale: true, readAhead: 4096},
		{dir: "/silent one", err: errors.New("no answer came"), readAhead: 4096},
		{dir: "/theirs", err: fs.ErrPermission},
		{dir: "/slow", readAhead: 128, bdi: "/sys/x"},
	})
	want := []struct {
		result verdict
		mend   string
	}{
		{verdictFail, "millrace unmount /dead"},
		{verdictFail, "millrace unmount --force '/silent one'"},
		{verdictWarn, "sudo millrace doctor"},
		{verdictWarn, "echo 4096 | sudo tee /sys/x"},
		{verdictOK, ""},
	}
	if len(findings) != len(want) {
		t.Fatalf("got %+v", findings)
	}
	for i, w := range want {
		if findings[i].Result != w.result || findings[i].Mend != w.mend {
			t.Errorf("got %+v, want %+v", findings[i], w)
		}
	}
}

func TestSocketFindings(t *testing.T) {
	s := server{socket: "/run/s", listed: []agent.Entry{{Dir: "/m", PID: 7}}}
	well := []agent.MountStatus{{Dir: "/m", Condition: &agent.Condition{Message: "fine"}}}
	sick := []agent.MountStatus{{
		Dir: "/m", Source: "https://h/",
		Condition: &agent.Condition{Abnormal: true, Message: "it waits"},
	}}
	dead := server{socket: "/run/s", listed: []agent.Entry{{Dir: "/m", PID: 7, Dead: true}}}
	cases := []struct {
		findings []finding
		want     verdict
		mend     string
	}{
		{socketFindings(s, fs.ModeSocket|0o666, nil, well), verdictWarn, "chmod 0600 /run/s"},
		{socketFindings(s, fs.ModeSocket|0o600, nil, sick), verdictFail, "millrace trace /m"},
		{socketFindings(s, fs.ModeSocket|0o600, errors.New("late"), nil), verdictFail, "kill -QUIT 7"},
		{socketFindings(dead, 0, fs.ErrNotExist, nil), verdictFail, "millrace unmount /m"},
	}
	if f := socketFindings(s, fs.ModeSocket|0o600, nil, well); len(f) != 0 {
		t.Errorf("got %+v", f)
	}
	for _, c := range cases {
		if len(c.findings) != 1 || c.findings[0].Result != c.want || !strings.HasPrefix(c.findings[0].Mend, c.mend) {
			t.Errorf("got %+v, want %s and %s", c.findings, c.want, c.mend)
		}
	}
}

func TestQuoted(t *testing.T) {
	for _, arg := range []string{"", "/a/b", "a b", "it's", "$(x)", "a\nb", "ü"} {
		out, err := exec.Command("sh", "-c", "printf %s "+quoted(arg)).Output()
		if err != nil || string(out) != arg {
			t.Errorf("%q became %q (%v)", arg, out, err)
		}
	}
}

func TestHandsFindings(t *testing.T) {
	for name, tc := range map[string]struct {
		mounts, kept int
		err          error
		want         finding
	}{
		"all":  {2, 2, nil, fine("keeper", "it keeps all of 2 mounts")},
		"more": {1, 2, nil, fine("keeper", "it keeps all of 1 mounts")},
		"not all": {2, 1, nil, warn("keeper", "", "it keeps 1 of 2 mounts: others are lost if "+
			"driver and agent end at once")},
		"no answer": {1, 0, fs.ErrNotExist, warn("keeper", "", "/k does not answer, and mounts are lost if "+
			"driver and agent end at once: file does not exist")},
	} {
		got := keeperFinding("/k", tc.mounts, tc.kept, tc.err)
		if got.Result != tc.want.Result || got.Found != tc.want.Found || (got.Mend == "") != (got.Result == verdictOK) {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
	lost := lostFindings([]handover.LostPod{{Volume: "v", Namespace: "ns", Name: "reader"}})
	if len(lost) != 1 || lost[0].Result != verdictFail || lost[0].Mend != "kubectl -n ns delete pod reader" {
		t.Errorf("a pod that lost its mount is %+v", lost)
	}
}
