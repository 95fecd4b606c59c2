package rpc

import (
	"errors"
	"strings"
	"testing"
)

// TestMountErrorsTellNoKeys has a master repeat a mount's options in its refusal, as Alluxio 2.9 does.
func TestMountErrorsTellNoKeys(t *testing.T) {
	m := Mount{
		Path:       "/d/web",
		Properties: map[string]string{"s3a.secretKey": "hunter2", "s3a.accessKeyId": "someone", "a": "b"},
	}
	refused := errors.New(
		`m:19998: Unknown: mount command: alluxio fs mount /d/web s3://d-1/ option MountContext{ProtoOptions=readOnly: true
properties {
  key: "s3a.secretKey"
  value: "hunter2"
}
shared: false
commonOptions {
  ttl: -1
}
}
A write operation on /d/web under a readonly mount point`,
	)
	err := withoutProperties(refused, m)
	if want := "m:19998: Unknown: A write operation on /d/web under a readonly mount point"; err.Error() != want ||
		!errors.Is(err, refused) {
		t.Errorf("%q", err)
	}
	err = withoutProperties(errors.New("the key someone with hunter2 is refused"), m)
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "someone") {
		t.Error(err)
	}
	if plain := errors.New("b is not there"); !errors.Is(withoutProperties(plain, m), plain) ||
		withoutProperties(nil, m) != nil {
		t.Error("another error is changed")
	}
}
