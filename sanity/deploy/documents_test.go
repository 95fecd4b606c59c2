package deploy_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/sanity/kube"
)

// word is what a reason, a type of condition or a phase looks like.
var word = regexp.MustCompile(`^[A-Z][A-Za-z]{3,}$`)

// noReasons are words in the code that users do not see as reasons: kinds, actions of Events, names in Alluxio's
// answers and in the status.
var noReasons = []string{
	"Accelerate", "Delete", "Load", "PersistentVolume", "PersistentVolumeClaim", "Reconcile", "StatefulSet", "Sweep",
	"Unfinished", "Normal", "DataLoad", "Provision",
	"LookAtMounts",
}

// words are all of them in the code of packages: literals and the constants that are made of them.
func words(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		must(t, err)
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(filepath.Base(name), "zz_") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			must(t, err)
			ast.Inspect(f, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if text, err := strconv.Unquote(l.Value); err == nil && word.MatchString(text) {
						found[text] = name
					}
				}
				return true
			})
		}
	}
	return found
}

// TestRunbook looks for each alert, and for each type, reason and phase that the code has, in the runbook.
func TestRunbook(t *testing.T) {
	page := text(t, "deploy/runbook.md")
	for _, r := range rules(t) {
		if !strings.Contains(page, "\n### "+r.Alert+"\n") {
			t.Errorf("there is no section on the alert %s", r.Alert)
		}
	}
	known := words(t, "controller/reconcile", "controller/load", "controller/claims", "controller/lost")
	constants(t, "controller/api/v1alpha1/conditions.go", known)
	constants(t, "controller/trouble/trouble.go", known)
	for _, phase := range []v1alpha1.DatasetPhase{
		v1alpha1.NotBound, v1alpha1.Bound, v1alpha1.Updating,
		v1alpha1.FailedPhase,
	} {
		known[string(phase)] = "the phases of a Dataset"
	}
	for _, phase := range []v1alpha1.LoadPhase{
		v1alpha1.LoadPending, v1alpha1.LoadExecuting, v1alpha1.LoadComplete,
		v1alpha1.LoadFailed,
	} {
		known[string(phase)] = "the phases of a DataLoad"
	}
	health := words(t, "driver")
	for _, reason := range []string{"AgentNotRunning", "NotServed", "NotMounted", "SessionAbnormal", "MountLost"} {
		if health[reason] == "" {
			t.Errorf("the driver has no reason %s any more", reason)
		}
		known[reason] = health[reason]
	}
	if len(known) < 40 {
		t.Fatalf("found only %d words: %v", len(known), known)
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if !slices.Contains(noReasons, name) && !strings.Contains(page, "`"+name+"`") {
			t.Errorf("nothing on `%s`, which is in %s", name, known[name])
		}
	}
}

// constants are the string constants of a file.
func constants(t *testing.T, file string, into map[string]string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, 0)
	must(t, err)
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			for _, v := range spec.Values {
				if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.STRING {
					text, err := strconv.Unquote(l.Value)
					must(t, err)
					into[text] = file
				}
			}
		}
		return true
	})
}

// TestMovingFromFluid looks for a row of each field of the API's specs.
func TestMovingFromFluid(t *testing.T) {
	page := text(t, "deploy/moving-from-fluid.md")
	sections := map[string]any{
		"Dataset": v1alpha1.DatasetSpec{}, "AlluxioRuntime": v1alpha1.AlluxioRuntimeSpec{},
		"DataLoad": v1alpha1.DataLoadSpec{},
	}
	for kind, spec := range sections {
		_, section, found := strings.Cut(page, "\n## "+kind+"\n")
		if !found {
			t.Errorf("there is no section on %s", kind)
			continue
		}
		section, _, _ = strings.Cut(section, "\n## ")
		for i := range reflect.TypeOf(spec).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(spec).Field(i).Tag.Get("json"), ",")
			// A row may be of the field, of a part of it, or of several.
			row := regexp.MustCompile("(?m)^\\| [^|]*`" + name + "(\\[\\])?(\\.[^`]*)?`[^|]*\\|")
			if !row.MatchString(section) {
				t.Errorf("%s.spec.%s has no row", kind, name)
			}
		}
	}
}

// TestQuickStart has the API server look at what README.md says to apply.
func TestQuickStart(t *testing.T) {
	kube.Need(t)
	s := shared.Get(t)
	kubectl(t, s, "apply", "--server-side", "-f", root+"/deploy/crd")
	kubectl(t, s, "wait", "--for=condition=Established", "-f", root+"/deploy/crd")
	_, specs, found := strings.Cut(text(t, "README.md"), "kubectl apply -f - <<EOF\n")
	specs, _, _ = strings.Cut(specs, "EOF\n")
	if !found || len(parse(t, specs)) != 2 {
		t.Fatalf("README.md applies %q", specs)
	}
	kubectl(t, s, "apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", file(t, specs))
}

// lettered is what has a letter or digit in it: words, and not the lines of diagrams and tables.
var lettered = regexp.MustCompile(`\S*[\pL\pN]\S*`)

// TestFirstPagesAreShort counts words: a newcomer reads a page whole or not at all.
func TestFirstPagesAreShort(t *testing.T) {
	page := text(t, "README.md")
	if words := len(strings.Fields(page)); words > 900 {
		t.Errorf("README.md has %d words, and 900 are enough", words)
	}
	if words := len(lettered.FindAllString(text(t, "docs/architecture.md"), -1)); words > 720 {
		t.Errorf("docs/architecture.md has %d words, and a page has 700", words)
	}
	if at := strings.Index(page, "$ make demo"); at < 0 || strings.Count(page[:at], "\n") > 24 {
		t.Error("the first command of README.md is not on its first screen")
	}
}

// TestDecisions checks that each decision's number is its own, that the index has them all, and that what the tree
// refers to exists.
func TestDecisions(t *testing.T) {
	id := regexp.MustCompile(`\bD-\d{3}\b`)
	index, body, found := strings.Cut(text(t, "DECISIONS.md"), "\n## ")
	if !found {
		t.Fatal("DECISIONS.md has no parts")
	}
	known, referred := map[string]bool{}, 0
	for _, m := range regexp.MustCompile(`(?m)^### (D-\d{3}) `).FindAllStringSubmatch(body, -1) {
		if known[m[1]] {
			t.Errorf("two decisions are %s", m[1])
		}
		known[m[1]] = true
	}
	if listed := id.FindAllString(index, -1); len(listed) != len(known) || len(known) < 100 {
		t.Errorf("the index has %d decisions, the page %d", len(listed), len(known))
	}
	must(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && (d.Name() == ".git" || d.Name() == "bin") {
				return filepath.SkipDir
			}
			return err
		}
		if ext := filepath.Ext(path); ext != ".go" && ext != ".md" && ext != ".sh" {
			return nil
		}
		data, err := os.ReadFile(path)
		for _, ref := range id.FindAllString(string(data), -1) {
			if filepath.Ext(path) == ".go" {
				referred++
			}
			if !known[ref] {
				t.Errorf("%s refers to %s, which is no decision", path, ref)
			}
		}
		return err
	}))
	if referred < 40 {
		t.Errorf("the code refers to only %d decisions", referred)
	}
}

// link is a relative link of a page.
var link = regexp.MustCompile(`\]\(([^):#]*)(#[^)]*)?\)`)

// TestLinks follows the links of the pages to files, and to headings in them.
func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text(t, page), -1) {
			to := filepath.Join(filepath.Dir(page), m[1])
			if m[1] == "" {
				to = page // A heading of the page itself.
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if m[2] != "" && !slices.Contains(headings(t, to), m[2][1:]) {
				t.Errorf("%s links to %s, which has no heading %s", page, to, m[2])
			}
		}
	}
}

// headings are those of a page, as links name them: small letters and digits, with dashes for spaces.
func headings(t *testing.T, page string) []string {
	t.Helper()
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text(t, page), -1) {
		name := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, strings.ReplaceAll(name, " ", "-"))
	}
	return found
}
