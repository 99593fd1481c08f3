package main

import (
	"bytes"
	"io"
	"os"
	"testing"
)

// What etcdctl/k8s was built with is what these modules say.
func TestWhatIsWrittenIsCurrent(t *testing.T) {
	for file, write := range map[string]func(io.Writer){
		"../../../etcdctl/k8s/src/schema.txt":       writeTable,
		"../../../etcdctl/k8s/testdata/objects.txt": writeObjects,
	} {
		var now bytes.Buffer
		write(&now)
		committed, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// A test's binary knows no versions of its modules: the first line tells one.
		_, have, _ := bytes.Cut(committed, []byte("\n"))
		_, want, _ := bytes.Cut(now.Bytes(), []byte("\n"))
		if !bytes.Equal(have, want) {
			t.Errorf("%s is not what this program writes: run it, as main.go says", file)
		}
	}
}
