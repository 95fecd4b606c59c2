package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/kube"
)

// pages are the documents of the tree.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/*.md", "deploy/*/*.md", "sanity/*/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		must(t, err)
		for _, name := range names {
			rel, err := filepath.Rel(root, name)
			must(t, err)
			found = append(found, rel)
		}
	}
	if len(found) < 15 {
		t.Fatalf("found only the pages %v", found)
	}
	return found
}

// block is a fenced part of a page.
type block struct {
	page, language, text string
}

// fence begins or ends a block.
var fence = regexp.MustCompile("(?m)^```([a-z]*)\n")

// blocks are all of a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	var found []block
	rest := text(t, page)
	for {
		begin := fence.FindStringSubmatchIndex(rest)
		if begin == nil {
			return found
		}
		body, after, closed := strings.Cut(rest[begin[1]:], "\n```")
		if !closed {
			t.Fatalf("%s has a block that does not end", page)
		}
		found = append(found, block{page: page, language: rest[begin[2]:begin[3]], text: body})
		rest = after
	}
}

// command is one that a page has a reader type. Its words are those that the program gets.
type command struct {
	page, line string
	// mentioned is a command within a sentence, which may lack the values of its flags.
	mentioned bool
	words     []string
}

// prompt begins a command of a block, for a user or for root.
var prompt = regexp.MustCompile(`^[$#] `)

// typed are the lines of a block after a prompt, each with what continues it: a line that ends in a backslash, or a
// here-document.
func typed(b *block) []string {
	var found []string
	lines := strings.Split(b.text, "\n")
	for i := 0; i < len(lines); i++ {
		if !prompt.MatchString(lines[i]) {
			continue
		}
		line := lines[i][2:]
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
			i++
			line = strings.TrimSuffix(line, `\`) + " " + strings.TrimSpace(lines[i])
		}
		if strings.HasSuffix(line, "<<EOF") {
			begin := i + 1
			for i+1 < len(lines) && lines[i] != "EOF" {
				i++
			}
			line = strings.Join(append([]string{line}, lines[begin:i+1]...), "\n")
		}
		found = append(found, line)
	}
	return found
}

// split cuts a line of a shell into its commands, whose words are still to be told apart. What a shell would replace
// becomes a word.
func split(page, line string, mentioned bool) []command {
	line, _, _ = strings.Cut(line, "<<EOF")
	var found []command
	for _, part := range separators.Split(withoutComment(line), -1) {
		part = strings.TrimSpace(part)
		if assigned := assignment.FindStringSubmatch(part); assigned != nil {
			part = assigned[1] // AGENT=$(kubectl ...)
		}
		part = redirected.ReplaceAllString(replaced.ReplaceAllString(part, "WORD"), "")
		if part != "" {
			found = append(found, command{page: page, line: part, mentioned: mentioned})
		}
	}
	return found
}

// tell has bash tell the words of all commands apart. It runs nothing of them: they are arguments of printf.
func tell(t *testing.T, all []command) {
	t.Helper()
	var script strings.Builder
	for _, c := range all {
		script.WriteString(`printf '%s\0' ` + c.line + "; printf '\\1'\n")
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-f", "-s")
	cmd.Env = []string{"PATH=/nonexistent"} // So that no slip of a page runs a program.
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.Output()
	must(t, err)
	told := strings.Split(strings.TrimSuffix(string(out), "\x01"), "\x01")
	if len(told) != len(all) {
		t.Fatalf("a shell makes %d commands of %d: %q", len(told), len(all), told)
	}
	for i := range all {
		all[i].words = strings.Split(strings.TrimSuffix(told[i], "\x00"), "\x00")
	}
}

var (
	separators = regexp.MustCompile(` *(?:&&|\|\||\||;) +`)
	replaced   = regexp.MustCompile("\\$\\([^)]*\\)|\\$\\{[^}]*\\}|\\$[A-Za-z]+|`[^`]*`")
	redirected = regexp.MustCompile(`<\([^)]*\)|[0-9]?[<>]+ *[^ ]+`)
	assignment = regexp.MustCompile(`^[A-Z]+=\$\((.*)\)$`)
)

// withoutComment cuts a comment off, which begins with a # after a space and outside of quotes.
func withoutComment(line string) string {
	var quote rune
	for i, c := range line {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '#' && (i == 0 || line[i-1] == ' '):
			return line[:i]
		}
	}
	return line
}

// span is code within a sentence that begins as a command of ours, of make, or of Kubernetes' programs does.
var span = regexp.MustCompile("`((?:bin/)?millrace|make|kubectl|helm)( [^`]+)`")

// commands are all that the pages have a reader type, in blocks and within sentences.
func commands(t *testing.T) []command {
	t.Helper()
	var found []command
	var lines strings.Builder
	for _, page := range pages(t) {
		prose := fenced.ReplaceAllString(text(t, page), "")
		for _, b := range blocks(t, page) {
			if b.language == "console" {
				for _, line := range typed(&b) {
					lines.WriteString(line + "\n")
					found = append(found, split(page, line, false)...)
				}
			}
		}
		for _, m := range span.FindAllStringSubmatch(prose, -1) {
			// What is left out, and what stands for something else, is not for a program.
			if line := strings.ReplaceAll(m[1]+m[2], "\n", " "); !strings.ContainsAny(line, "…<[|") &&
				!strings.Contains(line, "...") {
				found = append(found, split(page, line, true)...)
			}
		}
	}
	if len(found) < 100 {
		t.Fatalf("found only %d commands", len(found))
	}
	// -n: bash reads and runs nothing.
	syntax := exec.CommandContext(t.Context(), "bash", "-n")
	syntax.Stdin = strings.NewReader(lines.String())
	if out, err := syntax.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("not for a shell: %s\n%s", out, lines.String())
	}
	tell(t, found)
	return found
}

var fenced = regexp.MustCompile("(?ms)^```.*?^```")

// plain are programs that pages use and that have nothing of ours among their arguments.
var plain = []string{
	"cp", "curl", "docker", "mkdir", "source", "wc", "export", "cd", "git", "ssh-keygen", "openssl", "sha256sum",
	"tar", "cat", "go", "apt-get", "install", "du", "sh", "ls", "alluxio", "oras", "millrace-keeper",
}

// TestCommands looks at each command of each document: a target of make exists, and millrace's own programs understand
// the flags.
func TestCommands(t *testing.T) {
	targets := text(t, "Makefile")
	for _, c := range commands(t) {
		switch name := strings.TrimPrefix(c.words[0], "bin/"); name {
		case "make":
			for _, word := range c.words[1:] {
				if strings.HasPrefix(word, "-") || strings.Contains(word, "=") {
					continue
				}
				if !regexp.MustCompile(`(?m)^([a-z-]+ )*` + regexp.QuoteMeta(word) +
					`( [a-z-]+)*:`).MatchString(targets) {
					t.Errorf("%s: %q: the Makefile has no target %s", c.page, c.line, word)
				}
			}
		case "kubectl", "helm", "python3":
			c.files(t)
			if at := slices.Index(c.words, "--"); name == "kubectl" && at > 0 && at+1 < len(c.words) &&
				c.words[at+1] == "millrace" {
				understood(t, c, c.words[at+2:])
			}
		case "millrace":
			understood(t, c, c.words[1:])
		default:
			if !slices.Contains(plain, name) {
				t.Errorf("%s: %q: what is %s? Programs without anything of ours are in the list plain", c.page, c.line,
					name)
			}
		}
	}
}

// toRemove is the directory of ownPrograms, which TestMain removes; "" for none.
var toRemove string

// ownPrograms are millrace and those that it becomes, built for these tests.
var ownPrograms = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "millrace-documents-")
	if err != nil {
		return "", err
	}
	toRemove = dir
	// As make build has built them, so that nothing is compiled a second time.
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir+"/", "./cmd/millrace",
		"./cmd/millrace-controller", "./cmd/millrace-gateway")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building millrace: %w: %s", err, out)
	}
	return dir, err
})

// understood has millrace read arguments and then show its help in place of doing anything: flags that do not exist,
// and values that are not accepted, are errors before that.
func understood(t *testing.T, c command, args []string) {
	t.Helper()
	if testing.Short() {
		return // A program is not built in the quick ring; TestCommands looks at the rest.
	}
	dir, err := ownPrograms()
	must(t, err)
	if len(args) == 1 && args[0] == "help" {
		return
	}
	asked := append(slices.Clone(args), "--help")
	if c.mentioned {
		asked = []string{args[0], "--help"}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "millrace"), asked...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "Usage: millrace") {
		t.Errorf("%s: %q: %v: %s", c.page, c.line, err, out)
	}
	for _, word := range args {
		if flag, _, _ := strings.Cut(word, "="); c.mentioned && strings.HasPrefix(flag, "-") && flag != "--help" &&
			!strings.Contains(string(out), flag+" ") {
			t.Errorf("%s: %q: millrace %s has no flag %s", c.page, c.line, args[0], flag)
		}
	}
}

// files fails where a command names a file or a directory of the checkout that is not there.
func (c *command) files(t *testing.T) {
	t.Helper()
	for i, word := range c.words {
		name := word
		switch {
		case i > 0 && (c.words[i-1] == "-f" || c.words[i-1] == "-k"):
		case strings.HasPrefix(word, "deploy/"):
		default:
			continue
		}
		if name == "-" || name == "." || name == "WORD" || strings.HasPrefix(name, "http") {
			continue
		}
		// A page of deploy/ may be about the directory that it stands in, and the walkthrough is about its example.
		places := []string{
			root, filepath.Join(root, filepath.Dir(c.page)),
			filepath.Join(root, "deploy/examples/hbase"),
		}
		if !slices.ContainsFunc(places, func(dir string) bool {
			_,
				err := os.Stat(filepath.Join(dir, name))
			return err == nil
		}) {
			t.Errorf("%s: %q: there is no %s", c.page, c.line, name)
		}
	}
}

// TestCommandsOfKubernetes has kubectl and helm read what the pages have them do, and show their help in place of doing
// it.
func TestCommandsOfKubernetes(t *testing.T) {
	kube.Need(t)
	s := shared.Get(t)
	asked := 0
	for _, c := range commands(t) {
		args := slices.Clone(c.words[1:])
		if at := slices.Index(args, "--"); at >= 0 {
			args = args[:at]
		}
		args = append(args, "--help")
		switch c.words[0] {
		case "kubectl":
			if out, err := exec.CommandContext(t.Context(), s.KubectlPath(), args...).CombinedOutput(); err != nil ||
				!strings.Contains(string(out), "Usage:") {
				t.Errorf("%s: %q: %v: %s", c.page, c.line, err, out)
			}
		case "helm":
			if out, err := helm(t, args...); err != nil || !strings.Contains(out, "Usage:") {
				t.Errorf("%s: %q: %v: %s", c.page, c.line, err, out)
			}
		default:
			continue
		}
		asked++
	}
	if asked < 50 {
		t.Errorf("the pages have only %d commands for kubectl and helm", asked)
	}
}

// TestObjects decodes each Kubernetes object of a page strictly: those of blocks in YAML, and those that a command is
// given.
func TestObjects(t *testing.T) {
	decoded := 0
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			var specs []string
			switch b.language {
			case "yaml":
				specs = append(specs, b.text)
			case "console":
				for _, line := range typed(&b) {
					if _, spec, found := strings.Cut(line, "<<EOF\n"); found {
						specs = append(specs, strings.TrimSuffix(spec, "EOF"))
					}
				}
			}
			for _, spec := range specs {
				for _, o := range parse(t, spec) {
					if o.GetKind() != "" && strictly(t, page, o) {
						decoded++
					}
				}
			}
		}
	}
	if decoded < 6 {
		t.Errorf("the pages have only %d objects", decoded)
	}
}

// TestSources compares the options that docs/sources.md tells of with those that the sources accept.
func TestSources(t *testing.T) {
	page := text(t, "docs/sources.md")
	accepted := func(err error) []string {
		t.Helper()
		if err == nil {
			t.Fatal("an option that does not exist is accepted")
		}
		_, names, found := strings.Cut(err.Error(), "accepted are ")
		if !found {
			t.Fatalf("the error does not tell the options: %v", err)
		}
		names, _, _ = strings.Cut(names, ", and ")
		return strings.Split(names, ", ")
	}
	wrong := ufs.Options{Values: map[string]string{"no_option": "x"}}
	_, web := ufs.Open(t.Context(), "http://127.0.0.1:1/", wrong)
	_, dir := ufs.Open(t.Context(), t.TempDir(), wrong)
	_, s3 := ufs.Open(t.Context(), "s3://bucket", wrong)
	var cluster alluxio.Config
	ofCluster := accepted(cluster.Apply(t.Context(), alluxio.Given{Values: map[string]string{"no_option": "x"}}))
	for section, names := range map[string][]string{
		"Web servers": accepted(web), "Directories": accepted(dir),
		"Alluxio": ofCluster,
	} {
		_, part, _ := strings.Cut(page, "\n## "+section+"\n")
		part, _, _ = strings.Cut(part, "\n## ")
		for _, name := range names {
			if !strings.Contains(part, "`"+name+"`") {
				t.Errorf("docs/sources.md, %s: nothing on the option %s", section, name)
			}
		}
		for _, m := range regexp.MustCompile("(?m)^\\| (`[a-z_0-9]+`(?:, `[a-zA-Z_0-9]+`)*) "+
			"\\|").FindAllStringSubmatch(part, -1) {
			for _, named := range regexp.MustCompile("`([a-z_0-9]+)`").FindAllStringSubmatch(m[1], -1) {
				if !slices.Contains(names, named[1]) {
					t.Errorf("docs/sources.md, %s: the option %s is not accepted", section, named[1])
				}
			}
		}
	}
	_, part, _ := strings.Cut(page, "\n## S3\n")
	part, _, _ = strings.Cut(part, "What it cannot do")
	for _, m := range regexp.MustCompile("`([a-z_]+_[a-z_]+)`").FindAllStringSubmatch(part, -1) {
		if !slices.Contains(accepted(s3), m[1]) {
			t.Errorf("docs/sources.md, S3: the option %s is not accepted", m[1])
		}
	}
}
