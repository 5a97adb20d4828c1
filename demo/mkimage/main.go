// Command mkimage writes a small OCI image as a layout folder: Debian's static busybox, a shell as the entrypoint, and any further
// programs. It is for trying Drover where there is no registry.
//
//	mkimage DIR [PATH-IN-IMAGE=PROGRAM ...]
package main

import (
	"fmt"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover/demo/image"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: mkimage DIR [PATH-IN-IMAGE=PROGRAM ...]")
	}
	if strings.HasPrefix(args[0], "-") {
		return fmt.Errorf("%q is no folder: there are no flags; usage: mkimage DIR [PATH-IN-IMAGE=PROGRAM ...]", args[0])
	}
	if _, err := os.Stat(args[0]); err == nil {
		return fmt.Errorf("%s is there already: choose another folder", args[0])
	}
	programs := map[string]string{}
	for _, a := range args[1:] {
		at, from, ok := strings.Cut(a, "=")
		if !ok {
			return fmt.Errorf("%q is not PATH-IN-IMAGE=PROGRAM", a)
		}
		programs[at] = from
	}
	err := image.WriteLayout(args[0], image.Spec{Programs: programs,
		Config: v1.Config{Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"exec sleep 1000000"}, Env: []string{"PATH=/bin"}}})
	if err == nil {
		fmt.Printf("oci:%s\n", args[0])
	}
	return err
}
