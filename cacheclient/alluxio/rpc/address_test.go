package rpc

import (
	"slices"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, test := range []struct {
		in      string
		masters []string
		path    string
	}{
		{"alluxio://m:19998/", []string{"m:19998"}, "/"},
		{"alluxio://m:19998", []string{"m:19998"}, "/"},
		{"alluxio://m:19998/a/b", []string{"m:19998"}, "/a/b"},
		{"alluxio://m:19998//a///b//", []string{"m:19998"}, "/a/b"},
		{
			"alluxio://m-0.svc:1,m-1.svc:65535,10.0.0.1:19998/data",
			[]string{"m-0.svc:1", "m-1.svc:65535", "10.0.0.1:19998"},
			"/data",
		},
		{"alluxio://[::1]:19998/x", []string{"[::1]:19998"}, "/x"},
		{"alluxio://m:1/with space/ü/%41?#&", []string{"m:1"}, "/with space/ü/%41?#&"},
		{"alluxio://m:1/...", []string{"m:1"}, "/..."},
	} {
		a, err := ParseAddress(test.in)
		if err != nil || !slices.Equal(a.Masters, test.masters) || a.Path != test.path {
			t.Errorf("%q is %q and %q (%v), wanted %q and %q", test.in, a.Masters, a.Path, err, test.masters, test.path)
			continue
		}
		again, err := ParseAddress(a.String())
		if err != nil || again.String() != a.String() {
			t.Errorf("%q reads as %q, and that as %q (%v)", test.in, a, again, err)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, test := range []struct{ in, says string }{
		{"", "no alluxio://host:port"},
		{"http://m:1/", "no alluxio://host:port"},
		{"alluxio:/m:1/", "no alluxio://host:port"},
		{"alluxio://", `master "" is no host:port`},
		{"alluxio:///data", `master "" is no host:port`},
		{"alluxio://m/data", `master "m" is no host:port`},
		{"alluxio://m:/data", `has the port ""; accepted are 1 to 65535`},
		{"alluxio://:19998/", `master ":19998" is no host:port`},
		{"alluxio://m:0/", `has the port "0"`},
		{"alluxio://m:65536/", `has the port "65536"`},
		{"alluxio://m:http/", `has the port "http"`},
		{"alluxio://m:-1/", `has the port "-1"`},
		{"alluxio://m:1,/", `master "" is no host:port`},
		{"alluxio://m:1,n/", `master "n" is no host:port`},
		{"alluxio://::1:19998/", "is no host:port"},
		{"alluxio://me@m:1/", "takes no user"},
		{"alluxio://me:secret@m:1/", "takes no user"},
		{"alluxio://m:1/a/../b", `has a "." or ".." part`},
		{"alluxio://m:1/.", `has a "." or ".." part`},
		{"alluxio://m:1/a\x00b", "NUL"},
	} {
		_, err := ParseAddress(test.in)
		if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: the error is %v, wanted one line with %q", test.in, err, test.says)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells the password: %v", test.in, err)
		}
	}
}
