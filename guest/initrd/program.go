package initrd

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// libraryDirs is where Debian has shared libraries.
var libraryDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// Program is a dynamically linked program with all that it needs to run.
type Program struct {
	// Name is its file name.
	Name string
	Data []byte
	// Loader is the path of the dynamic loader as the program names it.
	Loader     string
	LoaderData []byte
	// Libraries are by file name.
	Libraries map[string][]byte
}

// ReadTools reads what drover-init runs, from a directory.
func ReadTools(dir string) ([]Program, error) {
	var tools []Program
	for _, name := range []string{"mke2fs", "e2fsck"} {
		p, err := ReadProgram(path.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("cannot take %s: %w", name, err)
		}
		tools = append(tools, p)
	}
	return tools, nil
}

// ReadProgram reads a program of this machine with its loader and every shared library that it needs.
func ReadProgram(file string) (Program, error) {
	p := Program{Name: path.Base(file), Libraries: map[string][]byte{}}
	var err error
	if p.Data, err = os.ReadFile(file); err != nil {
		return p, err
	}
	var needs []string
	if p.Loader, needs, err = inspect(file); err != nil {
		return p, err
	}
	if p.Loader == "" {
		return p, nil
	}
	if p.LoaderData, err = os.ReadFile(p.Loader); err != nil {
		return p, err
	}
	for len(needs) > 0 {
		name := needs[0]
		needs = needs[1:]
		if p.Libraries[name] != nil || name == path.Base(p.Loader) {
			continue
		}
		found := slices.IndexFunc(libraryDirs, func(dir string) bool {
			_, err := os.Stat(path.Join(dir, name))
			return err == nil
		})
		if found < 0 {
			return p, fmt.Errorf("%s needs %s, which is not in %s", file, name, strings.Join(libraryDirs, " "))
		}
		library := path.Join(libraryDirs[found], name)
		if p.Libraries[name], err = os.ReadFile(library); err != nil {
			return p, err
		}
		_, more, err := inspect(library)
		if err != nil {
			return p, err
		}
		needs = append(needs, more...)
	}
	return p, nil
}

// inspect returns the loader and the libraries that an ELF file asks for.
func inspect(file string) (loader string, needs []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close() // only read
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			text, err := io.ReadAll(p.Open())
			if err != nil {
				return "", nil, fmt.Errorf("%s: %w", file, err)
			}
			loader = strings.TrimRight(string(text), "\x00")
		}
	}
	needs, err = f.ImportedLibraries()
	return loader, needs, err
}
