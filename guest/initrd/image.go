package initrd

import (
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// Contents is what goes into the image.
type Contents struct {
	// Init is drover-init, statically linked.
	Init    []byte
	Modules []Module
	// Tools are for /sbin: mke2fs and e2fsck.
	Tools []Program
}

// Write writes the image: /init, /modules/NN-NAME.ko in load order, /sbin with its programs and their libraries. It is not compressed: to copy a
// few megabytes takes less time than to unpack them, above all on an emulated CPU.
func Write(w io.Writer, c Contents) error {
	a := NewArchive(w)
	for _, dir := range directories(c.Tools) {
		a.Dir(dir, 0o755)
	}
	// The kernel opens /dev/console for PID 1 before anything is mounted.
	a.Device("dev/console", 0o600, 5, 1)
	a.File("init", 0o755, c.Init)
	for i, m := range c.Modules {
		a.File(fmt.Sprintf("modules/%02d-%s.ko", i, m.Name), 0o644, m.Data)
	}
	files := map[string][]byte{}
	for _, tool := range c.Tools {
		a.File("sbin/"+tool.Name, 0o755, tool.Data)
		if tool.Loader == "" {
			continue
		}
		files[strings.TrimPrefix(tool.Loader, "/")] = tool.LoaderData
		for name, data := range tool.Libraries {
			files["lib/"+name] = data
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		a.File(name, 0o755, files[name])
	}
	return a.Close()
}

// directories lists the image's directories, parents first.
func directories(tools []Program) []string {
	dirs := []string{"dev", "lib", "modules", "proc", "root", "sbin", "sys"}
	for _, tool := range tools {
		if tool.Loader == "" {
			continue
		}
		for dir := path.Dir(strings.TrimPrefix(tool.Loader, "/")); dir != "."; dir = path.Dir(dir) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}
