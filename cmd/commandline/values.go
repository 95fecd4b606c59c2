package commandline

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Errors of these parsers are the second half of a sentence that begins with the flag and
// the value: `--quota "2Qi" is not a size: ...`.
var errSize = errors.New("not a size: accepted are bytes such as 1048576, or a number with a unit such as 2Gi, " +
	"512MiB " +
	"or 1.5G (Ki Mi Gi Ti count in 1024, K M G T in 1000)")

// sizePattern is a decimal number and an optional unit. Its parts are short enough that no
// input costs much.
var sizePattern = regexp.MustCompile(`^([0-9]{1,20})(\.[0-9]{1,20})?([kmgt]?)(i?)(b?)$`)

// ParseSize reads a size in bytes: 4096, 4096B, 2Gi, 2GiB, 1.5G, 512MB. Ki, Mi, Gi and Ti are
// powers of 1024, K, M, G and T of 1000, in either case. A fraction of a byte is dropped.
func ParseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(strings.ToLower(s))
	if m == nil || m[3] == "" && (m[4] != "" || m[2] != "") {
		return 0, errSize
	}
	number, ok := new(big.Rat).SetString(m[1] + m[2])
	if !ok {
		return 0, errSize
	}
	base := int64(1000)
	if m[4] != "" {
		base = 1024
	}
	power := int64(strings.IndexByte("kmgt", (m[3] + "k")[0]) + 1)
	if m[3] == "" {
		power = 0
	}
	unit := new(big.Int).Exp(big.NewInt(base), big.NewInt(power), nil)
	number.Mul(number, new(big.Rat).SetInt(unit))
	bytes := new(big.Int).Quo(number.Num(), number.Denom())
	if !bytes.IsInt64() {
		return 0, fmt.Errorf("too large: accepted are at most %d bytes, less than 8388608Ti", int64(math.MaxInt64))
	}
	return bytes.Int64(), nil
}

// SizeOver parses a size that must be more than zero.
func SizeOver(s string) (int64, error) {
	n, err := ParseSize(s)
	if err == nil && n == 0 {
		return 0, errors.New("too small: accepted are sizes from 1 byte on, such as 2Gi")
	}
	return n, err
}

// FormatSize is a size for people: "1.5 GiB".
func FormatSize(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

var ratioPattern = regexp.MustCompile(`^[0-9]{1,6}(\.[0-9]{1,12})?$|^\.[0-9]{1,12}$`)

// ParseRatio reads a number above 0 and at most 1.
func ParseRatio(s string) (float64, error) {
	if ratioPattern.MatchString(s) {
		if v, err := strconv.ParseFloat(s, 64); err == nil && v > 0 && v <= 1 {
			return v, nil
		}
	}
	return 0, errors.New("not a part of the quota: accepted is a number above 0 and at most 1, such as 0.95")
}

// ParseDuration reads a time above zero and at most a year.
func ParseDuration(s string) (time.Duration, error) {
	const longest = 365 * 24 * time.Hour
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > longest {
		return 0, errors.New("not a time above zero: accepted are numbers with a unit such as 500ms, 10s, 1m30s, at " +
			"most 8760h")
	}
	return d, nil
}

// ParseAge reads a time of zero or more.
func ParseAge(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil && d == 0 {
		return 0, nil
	}
	d, err := ParseDuration(s)
	if err != nil {
		return 0, errors.New("not a time: accepted are 0 and numbers with a unit such as 10s, 1m30s, at most 8760h")
	}
	return d, nil
}

// ParseMode reads permission bits in octal.
func ParseMode(s string) (fs.FileMode, error) {
	v, err := strconv.ParseUint(s, 8, 32)
	if err != nil || v > 0o777 {
		return 0, errors.New("not a mode: accepted are octal permission bits from 0000 to 0777, such as 0444")
	}
	return fs.FileMode(v), nil
}

// CountTo gives a parser of whole numbers from 1 to most.
func CountTo(most int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > most {
			return 0, fmt.Errorf("not a whole number from 1 to %d", most)
		}
		return n, nil
	}
}
