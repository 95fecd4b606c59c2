package masters

import "testing"

func TestLeaderName(t *testing.T) {
	for address, want := range map[string]string{
		"hbase-master-2/<unresolved>:19998": "hbase-master-2:19998",
		"hbase-master-2/10.1.2.3:19998":     "hbase-master-2:19998",
		"hbase-master-2:19998":              "hbase-master-2:19998",
		"/10.1.2.3:19998":                   "/10.1.2.3:19998",
		"":                                  "",
	} {
		if got := leaderName(address); got != want {
			t.Errorf("%q is called %q, not %q", address, got, want)
		}
	}
}
