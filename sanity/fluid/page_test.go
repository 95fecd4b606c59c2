package fluid

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// verdict is what a run has seen of a document.
func (s *stage) verdict(d document) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch held, ran := s.results[d.name]; {
	case !ran:
		return "not run"
	case !held:
		return "FAILS"
	}
	return expected(d)
}

// expected is the verdict of a document whose steps hold.
func expected(d document) string {
	switch {
	case d.cannot != "":
		return "cannot"
	case d.later != "":
		return "not yet"
	case d.unshown != "":
		return "in part"
	case d.differs != "":
		return "holds, otherwise"
	}
	return "holds"
}

// page has a row for each document, with the verdict that is given, and below what there is to say.
func page(verdict func(document) string) string {
	var samples, tests []document
	for _, sc := range scenes() {
		for _, d := range sc.documents {
			if d.of == "" {
				samples = append(samples, d)
			} else {
				tests = append(tests, d)
			}
		}
	}
	var text strings.Builder
	text.WriteString(pageHead)
	for _, part := range []struct {
		title     string
		documents []document
	}{{"Sample documents", samples}, {"Fluid's own tests", tests}} {
		slices.SortFunc(part.documents, func(a, b document) int { return cmp.Compare(a.of+a.name, b.of+b.name) })
		fmt.Fprintf(&text, "\n## %s\n\n| document | promise | here |\n|---|---|---|\n", part.title)
		for _, d := range part.documents {
			name := d.name
			if d.of != "" {
				name = d.of + " " + name
			}
			fmt.Fprintf(&text, "| %s | %s | %s |\n", name, d.promise, verdict(d))
		}
		text.WriteString("\n")
		for _, d := range part.documents {
			text.WriteString(remarks(d))
		}
	}
	text.WriteString(pageTail)
	return text.String()
}

// remarks are what a document's row leaves out, as an item of a list.
func remarks(d document) string {
	var parts []string
	for _, part := range []struct{ title, text string }{
		{"", d.cannot},
		{"", d.later},
		{"", d.unshown},
		{"", d.differs},
		{"Said: ", d.sentence},
		{"Changed: ", d.changed},
	} {
		if part.text != "" {
			parts = append(parts, part.title+part.text+".")
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return wrap("- **"+d.name+"**: "+strings.Join(parts, " "), 116)
}

// wrap breaks a text into lines of an item of a list.
func wrap(text string, width int) string {
	var lines strings.Builder
	length := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case length == 0:
		case length+1+len(word) > width:
			lines.WriteString("\n  ")
			length = 2
		default:
			lines.WriteString(" ")
			length++
		}
		lines.WriteString(word)
		length += len(word)
	}
	return lines.String() + "\n"
}

const pageHead = `# Fluid's documents

What each of Fluid's sample documents about Alluxio promises, and each of Fluid's own tests, and what comes of it here.
` + "`make fluid`" + ` follows them on a real Kubernetes, with their own YAML but for images, addresses, directories of
nodes, and what is called changed. A namespace stands for ` + "`default`" + `. A test compares this page with the list
that is run.

| here | is |
|---|---|
| holds | as the document has it |
| holds, otherwise | what is promised is there, in other words or by other means |
| in part | as far as it can be run without what the document is about |
| not yet | not there; what a user sees is tested |
| cannot | against the nature of either; what a user sees is tested |
`

const pageTail = `
Not in the list, for they are about other runtimes: juicefs, thinruntime, vineyard, efc_runtime, and sidecars without a
CSI driver (dataset_across_namespace_with_sidecar, fuse_sidecar_mode).
`

// TestPage compares the page in the tree with the list of documents.
func TestPage(t *testing.T) {
	const name = "../../docs/fluid.md"
	want := page(expected)
	if os.Getenv("MILLRACE_FLUID_WRITE") != "" {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Errorf("%s is not what the list says: MILLRACE_FLUID_WRITE=1 go test -run TestPage ./sanity/fluid", name)
	}
}

// TestDocuments checks that each row is whole, and that each document of Fluid's about Alluxio has one.
func TestDocuments(t *testing.T) {
	rows := map[string]bool{}
	for _, sc := range scenes() {
		for _, d := range sc.documents {
			if rows[d.name] {
				t.Errorf("%s is there twice", d.name)
			}
			rows[d.name] = true
			if row := "| " + d.of + " " + d.name + " | " + d.promise + " | holds, otherwise |"; len(row) > 120 {
				t.Errorf("the row of %s has %d columns", d.name, len(row))
			}
			if d.promise == "" || len(d.steps) == 0 {
				t.Errorf("%s promises nothing, or has no steps", d.name)
			}
			if d.later+d.cannot+d.unshown != "" && d.sentence == "" {
				t.Errorf("%s does not say what a user sees of what is not there", d.name)
			}
		}
	}
	for name := range strings.FieldsSeq(documents) {
		if !rows[name] {
			t.Errorf("no row for %s", name)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s is no document of Fluid's", name)
	}
}

// documents are Fluid's at a826600a: of docs/en/samples and docs/zh/samples, test/prow/testcases and test/gha-e2e.
//
//nolint:misspell // One of the names is so.
const documents = `
accelerate_data_accessing accelerate_data_accessing_by_hdfs accelerate_data_by_mem_or_ssd accelerate_different_storage
accelerate_pvc accelerate_s3_minio alluxio_s3_high_concurrency api_proxy application_controller arm64
automatic_clean_up_data_operation backup_and_restore_metadata cacheruntime_data_operations data_accessmodes
data_co_locality data_toleration data_warmup dataflow_affinity dataset_across_namespace_with_csi
dataset_mount_dataset_subpath dataset_scaling dataset_sharedOptions file_prefetcher fuse_affinity fuse_clean_policy
fuse_recover gcs_configuration hdfs_configuration hostpath image_pull_secrets knative machinelearning
master_high_avaliability metadata_sync multi_dataset_same_node_accessing nonroot_access other_volumes s3_configuration
tieredstore_config use_encryptoptions alluxio_dynamic_mountpoint alluxio_webufs cron_dataload csi_nodepublish_symlink
data_operation_clean_up dataset_pvc_subpath fuse_recovery webhook_mutating alluxio`
