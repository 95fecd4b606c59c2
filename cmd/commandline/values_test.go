package commandline

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	good := map[string]int64{
		"0": 0, "1": 1, "4096": 4096, "12B": 12, "12b": 12,
		"1K": 1000, "1k": 1000, "1kB": 1000, "1KB": 1000, "1Ki": 1024, "1KiB": 1024,
		"2M": 2e6, "2Mi": 2 << 20, "512MiB": 512 << 20, "512MB": 512e6,
		"1G": 1e9, "2Gi": 2 << 30, "2GiB": 2 << 30, "1.5G": 1.5e9, "1.5Gi": 3 << 29, "0.5Ki": 512,
		"1T": 1e12, "1Ti": 1 << 40, "0.1Ki": 102, "1.0001K": 1000, "007": 7,
		"9223372036854775807": math.MaxInt64, "8388607Ti": 8388607 << 40,
	}
	for in, want := range good {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	bad := []string{
		"", " ", "-1", "-1Gi", "+1", "1 Gi", " 1", "1Gi ", "NaN", "Inf", "1e9", "0x10", "1_000", "1.5", "1.5B", "1,5G",
		".5G", "1.G",
		"Gi", "i", "1i", "1iB", "1Qi", "1GGi", "1Gib2", "1Gi\n", "١Gi", "9223372036854775808", "8388608Ti",
		"99999999999999999999Ti",
		strings.Repeat("9", 500),
	}
	for _, in := range bad {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q: accepted as %d", in, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{
		"2Gi", "1.5G", "-1", "0", "9223372036854775807", "NaN", "1e9",
		"0.00000000000000000001Ti", "1KiB", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			if n != 0 {
				t.Errorf("%q: %d with the error %v", s, n, err)
			}
			return
		}
		if n < 0 {
			t.Errorf("%q is negative: %d", s, n)
		}
		// A size in bytes reads as itself, and case does not matter.
		if back, err := ParseSize(strconv.FormatInt(n, 10)); err != nil || back != n {
			t.Errorf("%q: %d reads back as %d, %v", s, n, back, err)
		}
		if upper, err := ParseSize(strings.ToUpper(s)); err != nil || upper != n {
			t.Errorf("%q in capitals: %d, %v", s, upper, err)
		}
	})
}

func TestParseRatio(t *testing.T) {
	for in, want := range map[string]float64{"0.95": 0.95, "1": 1, "1.0": 1, ".5": 0.5, "0.001": 0.001} {
		if got, err := ParseRatio(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "0.0", "1.01", "-0.5", "NaN", "Inf", "95%", "1e-3", "0x1p-1", "+0.5", "a"} {
		if got, err := ParseRatio(in); err == nil {
			t.Errorf("%q: accepted as %v", in, got)
		}
	}
}

func TestParseTimesModesAndCounts(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"500ms": 500 * time.Millisecond, "1m30s": 90 * time.Second,
		"8760h": 8760 * time.Hour,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "0s", "-1s", "10", "8761h", "1d", "NaN"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q: accepted as %v", in, got)
		}
	}
	for _, in := range []string{"0", "0s"} {
		if got, err := ParseAge(in); err != nil || got != 0 {
			t.Errorf("age %q: %v, %v", in, got, err)
		}
	}
	if _, err := ParseAge("-1s"); err == nil {
		t.Error("a negative age was accepted")
	}
	if got, err := ParseMode("0640"); err != nil || got != 0o640 {
		t.Errorf("mode: %v, %v", got, err)
	}
	for _, in := range []string{"", "888", "1777", "-1", "rwx", "0o644"} {
		if got, err := ParseMode(in); err == nil {
			t.Errorf("mode %q: accepted as %v", in, got)
		}
	}
	for _, in := range []string{"", "0", "-1", "65", "1.5", "x"} {
		if got, err := CountTo(64)(in); err == nil {
			t.Errorf("count %q: accepted as %v", in, got)
		}
	}
}
