package fluid

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/sanity/kubenodes"
	"millrace.io/millrace/sanity/serve"
	"millrace.io/millrace/sanity/testbed"
)

// scene are documents that are followed one after the other in one namespace.
type scene struct {
	name      string
	documents []document
}

// document is one of Fluid's, and what it comes to here.
type document struct {
	name string
	// of is where it is in Fluid's repository; empty for a sample document.
	of string
	// promise is what a user has after following it.
	promise string
	// changed is what of its YAML is another here, beside images and addresses.
	changed string
	// differs is what is seen here in other words, or by other means.
	differs string
	// later is what is not there yet, and cannot is why it never will be. A user sees what the steps wait for.
	later, cannot string
	// unshown is what a document is about and this machine has not.
	unshown string
	// sentence is what a user sees of what is not there.
	sentence string
	steps    []step
}

// place is where a scene is: a namespace, two nodes and a directory of the web server that no other scene has.
type place struct {
	*testbed.Bed

	ctx       context.Context // the run's
	namespace string
	nodes     [2]string
	site      *serve.Server
	directory string
	words     *strings.Replacer
	undo      []string // commands for the end of the document
}

// sceneLabel is of the namespaces of scenes.
const sceneLabel = "scene"

// play follows the documents of a scene.
func (s *stage) play(t *testing.T, sc scene, number int) {
	t.Helper()
	nodes := lane(number)
	p := &place{Bed: s.bed, ctx: s.ctx, namespace: sc.name, nodes: nodes, directory: s.directory(sc.name)}
	p.words = strings.NewReplacer(
		"{ns}", sc.name, "{node1}", nodes[0], "{node2}", nodes[1], "{web}", "http://"+siteName+"/"+sc.name+"/apache",
		"{s3}", "http://"+siteName+":7070", "{s3address}", "http://"+kubenodes.ControlPlane+":7070",
		"{key}", testbed.S3Key, "{secret}", testbed.S3Secret,
	)
	var begin sync.Once
	for _, d := range sc.documents {
		ran := false
		held := t.Run(d.name, func(t *testing.T) {
			ran = true
			begin.Do(func() { s.begin(t, p, number) })
			began := time.Now()
			t.Cleanup(func() {
				if t.Failed() {
					p.tell(t)
				}
				p.tidy(t)
				t.Logf("%s took %v", d.name, time.Since(began).Round(100*time.Millisecond))
			})
			for _, do := range d.steps {
				do(t, p)
			}
		})
		if ran {
			s.mu.Lock()
			s.results[d.name] = held
			s.mu.Unlock()
		}
	}
	// Where no document was asked for, there is none.
	_, _ = p.Cluster.Kubectl(s.ctx, "delete", "namespace", sc.name, "--ignore-not-found", "--wait=false")
}

// begin makes the namespace and the directory of a scene.
func (s *stage) begin(t *testing.T, p *place, number int) {
	t.Helper()
	var err error
	if p.site, err = s.site(p.namespace); err != nil {
		t.Fatal(err)
	}
	p.Apply(t, strings.NewReplacer("NAME", p.namespace, "LANE", string(rune('0'+number))).Replace(`apiVersion: v1
kind: Namespace
metadata:
  name: NAME
  labels: {`+sceneLabel+`: NAME}
  annotations: {scheduler.alpha.kubernetes.io/node-selector: "`+laneLabel+`=LANE"}
`))
	sees("get serviceaccount default -o name", `.`)(t, p)
}

// ours are the labels by which the controller's objects are told from a user's.
const ours = "app.kubernetes.io/managed-by"

// tidy removes what a document started, and leaves its Datasets to the next.
func (p *place) tidy(t *testing.T) {
	t.Helper()
	for _, command := range p.undo {
		if _, err := p.Cluster.Kubectl(p.ctx, p.line(command)...); err != nil {
			t.Error(err)
		}
	}
	p.undo = nil
	for _, kind := range []string{"deployments,statefulsets,jobs,pods", "dataloads"} {
		command := p.line("delete " + kind + " -l " + ours + "!=millrace --grace-period=1 --timeout=90s")
		if _, err := p.Cluster.Kubectl(p.ctx, command...); err != nil {
			t.Error(err)
		}
	}
}

// tell logs what there is, for a document that failed.
func (p *place) tell(t *testing.T) {
	t.Helper()
	for _, command := range []string{
		"get dataset,alluxioruntime,dataload,pods,pvc -o wide",
		`get dataset,alluxioruntime,dataload -o 'jsonpath={range .items[*]}{.kind}{" "}{.metadata.name}{"\n"}` +
			`{range .status.conditions[*]}{"  "}{.type}={.status} {.reason}: {.message}{"\n"}{end}{end}'`,
		"get events --sort-by=.lastTimestamp",
	} {
		out, err := p.Cluster.Kubectl(p.ctx, p.line(command)...)
		t.Log(out, err)
	}
}
