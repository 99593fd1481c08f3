// Command schema writes what etcdctl/k8s knows of Kubernetes' built-in kinds, from Kubernetes' own Go types:
//
//	go run ./schema table   > ../../etcdctl/k8s/src/schema.txt
//	go run ./schema objects > ../../etcdctl/k8s/testdata/objects.txt
//
// The table has each kind, and each type a kind is made of, with the number and the JSON name of every field. The
// objects are what a table's reader is tested with: an empty one of every kind and full ones of those seen most, each
// as the bytes an apiserver stores and as Kubernetes' JSON.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	mode := ""
	if len(os.Args) == 2 {
		mode = os.Args[1]
	}
	switch mode {
	case "table":
		writeTable(out)
	case "objects":
		writeObjects(out)
	default:
		fmt.Fprintln(os.Stderr, "usage: schema table|objects")
		os.Exit(2)
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
