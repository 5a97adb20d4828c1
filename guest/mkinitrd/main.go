// Command mkinitrd builds drover-init and makes the guest's initial RAM disk of it. script/build-guest runs it.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"drover/guest/initrd"
	"drover/internal/durable"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("mkinitrd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	modules := flags.String("modules", "build/guest/modules", "the kernel's module `directory`")
	tools := flags.String("tools", "/sbin", "the `directory` with the programs to take: mke2fs and e2fsck")
	out := flags.String("out", "build/guest/initrd.img", "the `file` to write")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	size, err := build(*modules, *tools, *out)
	if err != nil {
		fmt.Fprintf(stderr, "mkinitrd: %v\n", err)
		return 1
	}
	fmt.Fprintf(stdout, "%s: %d KiB\n", *out, size/1024)
	return 0
}

func build(modules, tools, out string) (size int, err error) {
	var c initrd.Contents
	if c.Init, err = buildInit(); err != nil {
		return 0, err
	}
	if c.Modules, err = initrd.Modules(modules); err != nil {
		return 0, err
	}
	if c.Tools, err = initrd.ReadTools(tools); err != nil {
		return 0, err
	}
	var image bytes.Buffer
	if err := initrd.Write(&image, c); err != nil {
		return 0, err
	}
	return image.Len(), durable.WriteFile(out, image.Bytes(), 0o644)
}

// buildInit compiles drover-init: static, without symbols, and without the C library's resolver and user database.
func buildInit() (data []byte, err error) {
	dir, err := os.MkdirTemp("", "mkinitrd-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "init")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "netgo,osusergo", "-ldflags", "-s -w -buildid=",
		"-o", file, "drover/cmd/drover-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot build drover-init: %w\n%s", err, text)
	}
	return os.ReadFile(file)
}
