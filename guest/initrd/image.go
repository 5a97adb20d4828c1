package initrd

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Contents is what goes into the image.
type Contents struct {
	// Init is drover-init, statically linked.
	Init    []byte
	Modules []Module
	// MkFS is mke2fs.
	MkFS Program
}

// Write writes the image: /init, /modules/NN-NAME.ko in load order, /sbin/mke2fs with its libraries. It is not compressed: to copy a
// few megabytes takes less time than to unpack them, above all on an emulated CPU.
func Write(w io.Writer, c Contents) error {
	a := NewArchive(w)
	for _, dir := range directories(c.MkFS) {
		a.Dir(dir, 0o755)
	}
	// The kernel opens /dev/console for PID 1 before anything is mounted.
	a.Device("dev/console", 0o600, 5, 1)
	a.File("init", 0o755, c.Init)
	for i, m := range c.Modules {
		a.File(fmt.Sprintf("modules/%02d-%s.ko", i, m.Name), 0o644, m.Data)
	}
	a.File("sbin/mke2fs", 0o755, c.MkFS.Data)
	if c.MkFS.Loader != "" {
		loader := strings.TrimPrefix(c.MkFS.Loader, "/")
		a.File(loader, 0o755, c.MkFS.LoaderData)
		for _, name := range sortedKeys(c.MkFS.Libraries) {
			a.File("lib/"+name, 0o755, c.MkFS.Libraries[name])
		}
	}
	return a.Close()
}

// directories lists the image's directories, parents first.
func directories(p Program) []string {
	dirs := []string{"dev", "lib", "modules", "proc", "root", "sbin", "sys"}
	if p.Loader != "" {
		for dir := path.Dir(strings.TrimPrefix(p.Loader, "/")); dir != "."; dir = path.Dir(dir) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func sortedKeys(m map[string][]byte) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
