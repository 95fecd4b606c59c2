package mountpoint

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	mount "k8s.io/mount-utils"
)

// tableFile is the kernel's table of mounts. That of the thread is right also where a thread has a mount namespace of
// its own.
const tableFile = "/proc/thread-self/mountinfo"

// emptySource is the source of a mount that was given none.
const emptySource = "none"

// Table is the mounts of this mount namespace that keep wants, in the order of the kernel's table; a nil keep wants
// all. It asks no file system.
func Table(keep func(m *mount.MountInfo) bool) ([]mount.MountInfo, error) {
	text, err := os.ReadFile(tableFile)
	if err != nil {
		return nil, fmt.Errorf("reading mountinfo: %w", err)
	}
	mounts, err := parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("reading mountinfo: %w", err)
	}
	if keep != nil {
		mounts = slices.DeleteFunc(mounts, func(m mount.MountInfo) bool { return !keep(&m) })
	}
	return mounts, nil
}

// parse reads a table. ParseMountInfo takes a file's name, fails on the whole table for one mount without a source,
// splits names at all that Unicode calls a space, and leaves the kernel's escapes in. So it reads a mended copy in
// memory.
func parse(text string) ([]mount.MountInfo, error) {
	copied, err := inMemory(mend(text))
	if err != nil {
		return nil, err
	}
	defer func() { _ = copied.Close() }()
	mounts, err := mount.ParseMountInfo(fmt.Sprintf("/proc/self/fd/%d", copied.Fd()))
	if err != nil {
		return nil, err
	}
	for i := range mounts {
		m := &mounts[i]
		m.Root, m.MountPoint = unescape(m.Root), unescape(m.MountPoint)
		m.FsType, m.Source = unescape(m.FsType), unescape(m.Source)
	}
	return mounts, nil
}

// mend gives every field of a table a text that ParseMountInfo takes for one field.
func mend(text string) string {
	text = escapeSpaces(text)
	if !strings.Contains(text, "  ") {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		// The optional fields end with a dash; after it come the type, the source and the options.
		head, tail, found := strings.Cut(line, " - ")
		if fields := strings.Split(tail, " "); found && len(fields) == 3 && fields[1] == "" {
			fields[1] = emptySource
			lines[i] = head + " - " + strings.Join(fields, " ")
		}
	}
	return strings.Join(lines, "\n")
}

// escapeSpaces writes the spaces of Unicode in octal, as the kernel writes those of ASCII: a plain one ends a field.
func escapeSpaces(text string) string {
	inName := func(r rune) bool { return unicode.IsSpace(r) && r != ' ' && r != '\n' }
	if strings.IndexFunc(text, inName) < 0 {
		return text
	}
	var out strings.Builder
	for at, r := range text {
		_, size := utf8.DecodeRuneInString(text[at:])
		for _, c := range []byte(text[at : at+size]) {
			if inName(r) {
				fmt.Fprintf(&out, `\%03o`, c)
			} else {
				out.WriteByte(c)
			}
		}
	}
	return out.String()
}

// inMemory makes a file that no directory has.
func inMemory(text string) (*os.File, error) {
	fd, err := unix.MemfdCreate("millrace-mountinfo", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	if _, err := f.WriteString(text); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// unescape turns the kernel's octal escapes, as \040 for a space, into what they stand for.
func unescape(field string) string {
	if !strings.Contains(field, `\`) {
		return field
	}
	var out strings.Builder
	for i := 0; i < len(field); i++ {
		if field[i] == '\\' && i+3 < len(field) && octal(field[i+1:i+4]) {
			out.WriteByte((field[i+1]-'0')<<6 | (field[i+2]-'0')<<3 | (field[i+3] - '0'))
			i += 3
			continue
		}
		out.WriteByte(field[i])
	}
	return out.String()
}

// octal reports whether the three digits are the number of a byte.
func octal(digits string) bool {
	return digits[0] >= '0' && digits[0] <= '3' && digits[1] >= '0' && digits[1] <= '7' && digits[2] >= '0' &&
		digits[2] <= '7'
}
