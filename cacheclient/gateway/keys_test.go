package gateway_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"millrace.io/millrace/cacheclient/gateway"
)

func TestKeysFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "keys")
	var wg sync.WaitGroup
	all := make([]gateway.Keys, 8)
	for i := range all {
		wg.Go(func() {
			var err error
			if all[i], err = gateway.LoadKeys(name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range all {
		if k != all[0] || k.AccessKeyID == "" || len(k.SecretAccessKey) < 40 {
			t.Errorf("gateways that begin together have the keys %v and %v", k, all[0])
		}
	}
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(name)); len(left) != 1 {
		t.Errorf("files beside: %v", left)
	}
	if a, b := gateway.NewKeys(), gateway.NewKeys(); a == b {
		t.Error("keys repeat")
	}
	for _, shown := range []string{
		fmt.Sprint(all[0]), fmt.Sprintf("%v %+v %#v", all[0], all[0], all[0]),
		slog.Any("k", all[0]).Value.Resolve().String(),
	} {
		if strings.Contains(shown, all[0].SecretAccessKey) {
			t.Errorf("the secret shows in %s", shown)
		}
	}
}

func TestKeysFileRefused(t *testing.T) {
	const secret = "0123456789abcdefSECRET"
	good := "access_key_id = KEY\nsecret_access_key = " + secret + "\n"
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"others":    {good, 0o644, "others may read"},
		"group w":   {good, 0o620, "others may read or change"},
		"no key":    {"secret_access_key = " + secret + "\n", 0o600, "access_key_id is missing"},
		"no secret": {"access_key_id = KEY\n", 0o600, "secret_access_key is missing"},
		"short": {
			"access_key_id = KEY\nsecret_access_key = abc\n", 0o600,
			"secret_access_key is missing or not 16",
		},
		"other": {good + "region = x\n", 0o600, "line 3 gives neither"},
		"twice": {good + "access_key_id = KEY\n", 0o600, "line 3 gives its key a second time"},
		"empty": {"", 0o600, "access_key_id is missing"},
		"large": {strings.Repeat("#\n", 40000), 0o600, "larger than"},
		"fine":  {"# comment\n\n" + good, 0o640, ""},
	} {
		file := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := gateway.LoadKeys(file)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && (!strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "SECRET")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := gateway.LoadKeys(t.TempDir()); err == nil {
		t.Error("a directory is a keys file")
	}
	if _, err := gateway.LoadKeys(filepath.Join(t.TempDir(), "no", "keys")); err == nil {
		t.Error("a file in no directory is made")
	}
}
