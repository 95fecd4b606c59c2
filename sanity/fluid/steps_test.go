package fluid

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pattern"
	"millrace.io/millrace/sanity/testbed"
)

// step is what a document's reader types, and what is seen then.
type step func(t *testing.T, p *place)

// How long a step waits: for what happens within seconds, and for what starts Alluxio.
const (
	soon  = 2 * time.Minute
	start = 5 * time.Minute
)

// applied are the manifests of all steps, for a test that decodes them.
var applied []string

// apply creates objects, or changes them.
func apply(manifests ...string) step {
	applied = append(applied, manifests...)
	return applying(manifests...)
}

// applying is apply of what is made while a document is followed.
func applying(manifests ...string) step {
	return func(t *testing.T, p *place) {
		p.Apply(t, p.words.Replace(strings.Join(manifests, "---\n")), "-n", p.namespace)
	}
}

// refused has the API server, or kubectl, refuse objects with all of the words.
func refused(manifest string, words ...string) step {
	return func(t *testing.T, p *place) {
		_, err := p.KubectlInput(t.Context(), p.words.Replace(manifest), "apply", "-n", p.namespace, "-f", "-")
		if err == nil {
			t.Fatal("it is accepted")
		}
		if missing := absent(err.Error(), words); missing != "" {
			t.Fatalf("it is refused with %q, and not %q", err, missing)
		}
	}
}

// absent is the first of the words that a text does not have, "" where it has all.
func absent(text string, words []string) string {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return word
		}
	}
	return ""
}

// line is a command of kubectl in the namespace. What is between single quotes is one argument.
func (p *place) line(command string) []string {
	args := []string{"-n", p.namespace}
	for i, part := range strings.Split(p.words.Replace(command), "'") {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	return args
}

// kubectl runs a command.
func kubectl(command string) step {
	return func(t *testing.T, p *place) { p.Kubectl(t, p.line(command)...) }
}

// sees waits until a command of kubectl prints what matches all expressions.
func sees(command string, expressions ...string) step { return within(soon, command, expressions...) }

func within(patience time.Duration, command string, expressions ...string) step {
	return func(t *testing.T, p *place) {
		t.Helper()
		var all []*regexp.Regexp
		for _, e := range expressions {
			all = append(all, regexp.MustCompile(p.words.Replace(e)))
		}
		p.Await(t, patience, "kubectl "+command, func() error {
			out, err := p.Cluster.Kubectl(t.Context(), p.line(command)...)
			for _, e := range all {
				if err == nil && !e.MatchString(out) {
					err = fmt.Errorf("%q does not match %s", out, e)
				}
			}
			return err
		})
	}
}

// shows waits for the columns of a Dataset, each an expression, with a blank between two.
func shows(dataset, columns string) step {
	return sees("get dataset "+dataset, row(dataset, columns))
}

// row is an expression for an object's row, whose columns have a blank between two here.
func row(name, columns string) string {
	return "(?m)^" + name + " +" + strings.ReplaceAll(columns, " ", " +") + " "
}

// parts waits until that many masters and workers are there and ready, and nodes that have the claim mounted.
func parts(runtime string, masters, workers, nodes int) step {
	columns := fmt.Sprintf("%[1]d %[1]d Ready %[2]d %[2]d Ready %[3]d %[3]d Ready", masters, workers, nodes)
	return sees("get alluxioruntime "+runtime+" -o wide", row(runtime, columns))
}

// bound waits until a Dataset is.
func bound(dataset string) step {
	return within(start, "get dataset "+dataset+" -o jsonpath={.status.phase}", `^Bound$`)
}

// condition waits for a condition of that status whose reason and message have all words.
func condition(object, kind, status string, words ...string) step {
	expressions := []string{"^" + status + " "}
	for _, word := range words {
		expressions = append(expressions, regexp.QuoteMeta(word))
	}
	return sees(fmt.Sprintf(`get %s -o 'jsonpath={range .status.conditions[?(@.type=="%s")]}`+
		`{.status} {.reason}: {.message}{end}'`, object, kind), expressions...)
}

// event waits for an event on an object whose message has all words.
func event(object, reason string, words ...string) step {
	kind, name, _ := strings.Cut(object, "/")
	expressions := []string{`(?s).+`}
	for _, word := range words {
		expressions = append(expressions, regexp.QuoteMeta(word))
	}
	of := "involvedObject.kind=" + kind + ",involvedObject.name=" + name + ",reason=" + reason
	return sees("get events --field-selector "+of+" -o jsonpath={.items[*].message}", expressions...)
}

// allReady waits until these pods of Alluxio, and no others, run with all their containers.
func allReady(pods ...string) step {
	return func(t *testing.T, p *place) {
		p.Await(t, start, strings.Join(pods, ", ")+" are ready", func() error {
			out, err := p.Cluster.Kubectl(t.Context(), p.line("get pods --no-headers -l "+ours+"=millrace")...)
			if err != nil {
				return err
			}
			var ready []string
			for l := range strings.Lines(out) {
				f := strings.Fields(l)
				if n, all, _ := strings.Cut(f[1], "/"); n == all && f[2] == "Running" {
					ready = append(ready, f[0])
				}
			}
			if !slices.Equal(ready, pods) || strings.Count(out, "\n") != len(pods) {
				return errors.New(out)
			}
			return nil
		})
	}
}

// running waits until a pod is ready.
func running(pod string) step {
	return within(start, "get pod "+pod+` -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'`, `^True$`)
}

// done waits for a Job's end, and fails with its log when it fails.
func done(job string) step {
	return func(t *testing.T, p *place) {
		p.Await(t, start, "job "+job, func() error {
			command := p.line("get job " + job + " -o jsonpath={.status.succeeded}/{.status.failed}")
			out, err := p.Cluster.Kubectl(t.Context(), command...)
			if succeeded, failed, _ := strings.Cut(out, "/"); err == nil && succeeded == "" {
				if failed != "" {
					logs, _ := p.Cluster.Kubectl(t.Context(), p.line("logs job/"+job)...)
					t.Fatalf("job %s failed: %s", job, logs)
				}
				err = errors.New("runs")
			}
			return err
		})
	}
}

// cleared deletes all Datasets of the scene.
var cleared = kubectl("delete datasets,alluxioruntimes --all --timeout=180s")

// gone waits until objects are not there.
func gone(objects string) step {
	return within(start, "get "+objects+" --ignore-not-found -o name", `^$`)
}

// has compares the sums of all files of a tree, read in a pod.
func has(pod, dir string, files tree) step {
	return func(t *testing.T, p *place) {
		command := p.line("exec " + pod + " -- sh -c 'find " + dir + " -type f | xargs sha256sum'")
		p.check(t, p.Kubectl(t, command...), dir, files)
	}
}

// logged compares sums that something has printed.
func logged(of, dir string, files tree) step {
	return func(t *testing.T, p *place) { p.check(t, p.Kubectl(t, p.line("logs "+of)...), dir, files) }
}

func (p *place) check(t *testing.T, text, dir string, files tree) {
	t.Helper()
	for name, size := range files {
		if want := sum(path.Base(name), size) + "  " + path.Join(dir, name) + "\n"; !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
}

var sums sync.Map // of files, by name and size

func sum(name string, size int64) string {
	key := fmt.Sprint(name, " ", size)
	known, ok := sums.Load(key)
	if !ok {
		h := sha256.New()
		_, _ = io.Copy(h, pattern.Reader(name, size)) // A hash takes all.
		known = hex.EncodeToString(h.Sum(nil))
		sums.Store(key, known)
	}
	text, _ := known.(string)
	return text
}

// described bounds the bytes by which a gateway that starts finds out what its source says of files: one byte of each.
const described = 100

// warm has steps read nothing from the web server.
func warm(steps ...step) step {
	return func(t *testing.T, p *place) {
		before := p.site.Stats()
		for _, do := range steps {
			do(t, p)
		}
		if sent := p.site.Stats().Sub(before).BodyBytes; sent > described {
			t.Errorf("%d bytes came from the source", sent)
		}
	}
}

// published adds a file to the scene's directory of the web server.
func published(name string, size int64) step {
	return func(t *testing.T, p *place) {
		if err := (tree{filepath.Base(name): size}).write(filepath.Join(p.directory, filepath.Dir(name))); err != nil {
			t.Fatal(err)
		}
	}
}

// afterwards undoes what is not in the namespace when the document has ended.
func afterwards(commands ...string) step {
	return func(_ *testing.T, p *place) { p.undo = append(p.undo, commands...) }
}

// onNode runs a command in a directory of a node, which is made where it is not there.
func onNode(node, dir, command string) step {
	return func(t *testing.T, p *place) {
		applying(fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: painter}
spec:
  restartPolicy: Never
  nodeName: "%s"
  containers: [{name: main, image: "busybox:stable", command: [sh, -c, %q], volumeMounts: [{name: d, mountPath: /d}]}]
  volumes: [{name: d, hostPath: {path: %s, type: DirectoryOrCreate}}]
`, node, command, dir))(t, p)
		sees("get pod painter -o jsonpath={.status.phase}", `^Succeeded$`)(t, p)
		kubectl("delete pod painter")(t, p)
	}
}

// agentKilled deletes the agent of the node that a pod is on, and waits for the next.
func agentKilled(pod string) step {
	return func(t *testing.T, p *place) {
		node := p.Kubectl(t, p.line("get pod "+pod+" -o jsonpath={.spec.nodeName}")...)
		p.Kubectl(t, "delete", "pod", "-n", testbed.Namespace, "-l", "app.kubernetes.io/component=agent",
			"--field-selector", "spec.nodeName="+node)
		p.Kubectl(t, "rollout", "status", "-n", testbed.Namespace, "daemonset/millrace-agent", "--timeout=120s")
	}
}

// killed ends the first process of a pod's first container, and waits until it has started again. A pod that is just
// being replaced is no crash, and its successor is killed, too.
func killed(pod string) step {
	return func(t *testing.T, p *place) {
		p.Await(t, start, pod+" has crashed", func() error {
			command := p.line("get pod " + pod +
				" -o jsonpath={.status.phase}/{.status.containerStatuses[0].restartCount}")
			out, err := p.Cluster.Kubectl(t.Context(), command...)
			if err == nil && out != "Running/1" {
				// It may take the shell along that asks for it.
				_, _ = p.Cluster.Kubectl(t.Context(), p.line("exec "+pod+" -- sh -c 'kill 1; sleep 2'")...)
				err = errors.New(out)
			}
			return err
		})
	}
}

// mounted waits until a claim of the namespace is mounted on that many of the scene's nodes.
func mounted(claim string, want int) step {
	return func(t *testing.T, p *place) {
		p.Await(t, soon, fmt.Sprintf("%s is mounted on %d nodes", claim, want), func() error {
			n := 0
			for _, node := range p.nodes {
				out, err := p.Node(node).Command(t.Context(), "cat", "/proc/self/mountinfo").Output()
				if err != nil {
					return err
				}
				if strings.Contains(string(out), "/"+p.namespace+"-"+claim+"/") {
					n++
				}
			}
			if n != want {
				return fmt.Errorf("on %d", n)
			}
			return nil
		})
	}
}

// leaderKilled deletes the leading master, and waits until another leads.
func leaderKilled(t *testing.T, p *place) {
	leader := func() string {
		command := p.line(`get dataset hbase -o 'jsonpath={.status.conditions[?(@.type=="Ready")].message}'`)
		out := p.Kubectl(t, command...)
		_, host, _ := strings.Cut(out, "served by ")
		name, _, _ := strings.Cut(host, ":")
		return name
	}
	before := leader()
	p.Kubectl(t, p.line("delete pod "+before+" --wait=false")...)
	p.Await(t, soon, "another leader", func() error {
		if now := leader(); now == "" || now == before {
			return fmt.Errorf("%q leads", now)
		}
		return nil
	})
}

// goesOn has a pod that prints a line for each round go on with it.
func goesOn(pod string) step {
	return func(t *testing.T, p *place) {
		last := func() string { return p.Kubectl(t, p.line("logs "+pod+" --tail=1")...) }
		before := last()
		p.Await(t, soon, pod+" goes on", func() error {
			if now := last(); now == before {
				return errors.New(now)
			}
			return nil
		})
		sees("get pod "+pod+" -o jsonpath={.status.phase}", `^Running$`)(t, p)
	}
}
