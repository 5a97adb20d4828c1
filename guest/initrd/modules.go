package initrd

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Wanted names the modules that drover-init needs, unless the kernel has them built in: the buses, then disks, then what else.
var wanted = []string{
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "ext4", "virtio_rng", "virtio_balloon",
}

// Module is a kernel module in the form in which it goes into the archive.
type Module struct {
	// Name is the module's name with underscores, as in /proc/modules.
	Name string
	Data []byte
}

// Modules reads the modules that drover-init needs, and what they depend on, from a kernel's module directory
// (/lib/modules/VERSION), in the order in which they must be loaded. The modules tell themselves what they need: the index
// that depmod makes is not in the package.
func Modules(dir string) ([]Module, error) {
	tree, err := readTree(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read kernel modules in %s: %w", dir, err)
	}
	for _, name := range wanted {
		if err := tree.add(name, nil); err != nil {
			return nil, fmt.Errorf("cannot collect kernel module %s in %s: %w", name, dir, err)
		}
	}
	return tree.order, nil
}

// tree is a kernel's modules: where each is, which are built in, and the ones collected so far.
type tree struct {
	files   map[string]string
	builtin map[string]bool
	order   []Module
	done    map[string]bool
}

func readTree(dir string) (*tree, error) {
	t := &tree{files: map[string]string{}, builtin: map[string]bool{}, done: map[string]bool{}}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		t.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			t.files[moduleName(path)] = path
		}
		return err
	})
	return t, err
}

// moduleName returns the name that the kernel gives the module in a file such as "virtio-rng.ko.xz".
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// add collects a module after what it depends on. above is the chain that led here.
func (t *tree) add(name string, above []string) error {
	if t.done[name] || t.builtin[name] {
		return nil
	}
	if slices.Contains(above, name) {
		return fmt.Errorf("modules depend on each other: %s", strings.Join(append(above, name), " -> "))
	}
	path, ok := t.files[name]
	if !ok {
		return fmt.Errorf("the kernel has no module %s, neither as a file nor built in", name)
	}
	data, err := readModule(path)
	if err != nil {
		return err
	}
	depends, err := dependencies(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, d := range depends {
		if err := t.add(strings.ReplaceAll(d, "-", "_"), append(above, name)); err != nil {
			return err
		}
	}
	if data, err = slim(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	t.order = append(t.order, Module{Name: name, Data: data})
	t.done[name] = true
	return nil
}

// readModule reads a module file, unpacked by the tool of its suffix when the kernel package has it compressed.
func readModule(path string) ([]byte, error) {
	tool := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[filepath.Ext(path)]
	if tool == "" {
		return os.ReadFile(path)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(tool, "-dc", path)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot unpack %s with %s: %w: %s", path, tool, err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// dependencies reads the "depends=" entry of a module's .modinfo section: zero-terminated strings.
func dependencies(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no .modinfo section: not a kernel module")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}

// signatureEnd ends a module with an appended signature; a 12 byte struct module_signature stands before it, which has the length
// of the signature, big endian, in its last 4 bytes (Linux include/linux/module_signature.h).
var signatureEnd = []byte("~Module signature appended~\n")

// slim takes away what costs time at each boot and is of no use in the guest: the signature, which takes a software-emulated
// CPU longer to verify than to load the module (the kernel does not demand it, and whoever could change the archive could
// change the kernel as well), and the type information for BPF, which the kernel would parse.
func slim(module []byte) ([]byte, error) {
	if body, ok := bytes.CutSuffix(module, signatureEnd); ok {
		if len(body) < 12 {
			return nil, errors.New("broken module signature")
		}
		length := int(binary.BigEndian.Uint32(body[len(body)-4:]))
		if length > len(body)-12 {
			return nil, errors.New("broken module signature")
		}
		module = body[:len(body)-12-length]
	}
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".BTF")
	if section == nil {
		return module, nil
	}
	// Renamed, the section is not found; to remove it would mean to lay the file out again.
	names, err := f.Section(".shstrtab").Data()
	if err != nil {
		return nil, err
	}
	at := bytes.Index(names, []byte("\x00.BTF\x00"))
	if at < 0 {
		return module, nil
	}
	out := bytes.Clone(module)
	out[int(f.Section(".shstrtab").Offset)+at+1] = '_'
	return out, nil
}
