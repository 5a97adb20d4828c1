package ext4

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// ErrInput is the cause of every error that comes of the input: a file system cannot hold it.
var ErrInput = errors.New("not possible in a file system")

func inputErrorf(format string, args ...any) error {
	return fmt.Errorf("%s (%w)", fmt.Sprintf(format, args...), ErrInput)
}

// Attr is what every kind of file has. Mode holds the permission bits with setuid (04000), setgid (02000) and sticky (01000).
type Attr struct {
	Mode   uint16
	UID    uint32
	GID    uint32
	MTime  time.Time
	Xattrs map[string]string
}

// node is one inode to be.
type node struct {
	attr     Attr
	kind     uint16
	size     int64
	extents  []extent
	target   string // of a symbolic link
	device   uint64 // of a device: major << 32 | minor
	children map[string]*dirent
	links    int
	ino      uint32
}

// dirent is a name in a directory. Its layer is the newest that named it, because a whiteout hides only what older layers made.
type dirent struct {
	node  *node
	layer int
}

func newDir(attr Attr) *node {
	return &node{attr: attr, kind: typeDir, children: map[string]*dirent{}}
}

func (n *node) isDir() bool { return n.kind == typeDir }

// sortedNames lists a directory in byte order, which is what makes the result deterministic.
func (n *node) sortedNames() []string { return slices.Sorted(maps.Keys(n.children)) }

const (
	// maxHops bounds the symbolic links that are followed for one path, as the kernel does.
	maxHops = 40
	// maxDepth bounds how deep directories are nested, so that walking the tree has a bound.
	maxDepth = 4096
)

// walker follows a path inside the tree. It can never leave it: ".." stops at the root, as after chroot.
type walker struct {
	b      *Builder
	create bool
	hops   int
	stack  []*node // from the root to where we are
}

func (w *walker) at() *node { return w.stack[len(w.stack)-1] }

// step enters the directory of a name; symbolic links are followed.
func (w *walker) step(name string) error {
	switch name {
	case "", ".":
		return nil
	case "..":
		if len(w.stack) > 1 {
			w.stack = w.stack[:len(w.stack)-1]
		}
		return nil
	}
	d := w.at().children[name]
	if d == nil {
		if !w.create {
			return inputErrorf("%q does not exist", name)
		}
		if err := w.b.admit(name); err != nil {
			return err
		}
		d = &dirent{node: newDir(Attr{Mode: 0o755, MTime: time.Unix(0, 0)}), layer: w.b.layer}
		d.node.links = 1
		w.at().children[name] = d
	}
	switch {
	case d.node.isDir():
		if len(w.stack) >= maxDepth {
			return inputErrorf("directories are nested more than %d deep", maxDepth)
		}
		w.stack = append(w.stack, d.node)
		return nil
	case d.node.kind == typeSymlink:
		if w.hops++; w.hops > maxHops {
			return inputErrorf("%q: more than %d symbolic links", name, maxHops)
		}
		if strings.HasPrefix(d.node.target, "/") {
			w.stack = w.stack[:1]
		}
		return w.walk(d.node.target)
	default:
		return inputErrorf("%q is not a directory", name)
	}
}

func (w *walker) walk(p string) error {
	for name := range strings.SplitSeq(p, "/") {
		if err := w.step(name); err != nil {
			return err
		}
	}
	return nil
}

// parent finds the directory that holds the path's last name, making the missing ones when asked. An empty name is the root itself.
func (b *Builder) parent(p string, create bool) (*node, string, error) {
	w := &walker{b: b, create: create, stack: []*node{b.root}}
	dir, name := path.Split(path.Clean("/" + p))
	if name == "" {
		return b.root, "", nil
	}
	if err := w.walk(dir); err != nil {
		return nil, "", err
	}
	return w.at(), name, nil
}

// admit checks a new name and counts it.
func (b *Builder) admit(name string) error {
	if b.entries++; b.entries > b.opts.MaxEntries {
		return inputErrorf("more than %d files", b.opts.MaxEntries)
	}
	if len(name) > maxNameLen {
		return inputErrorf("the name %.40q… has %d bytes, %d are possible", name, len(name), maxNameLen)
	}
	if strings.ContainsRune(name, 0) {
		return inputErrorf("the name %q has a zero byte", name)
	}
	return nil
}

// put names a node, replacing what has the name. A directory that meets a directory keeps its content.
func (b *Builder) put(p string, n *node) error {
	dir, name, err := b.parent(p, true)
	if err != nil {
		return err
	}
	if name == "" {
		if !n.isDir() {
			return inputErrorf("%q would replace the root directory", p)
		}
		b.root.attr = n.attr
		return nil
	}
	if err := b.admit(name); err != nil {
		return err
	}
	old := dir.children[name]
	if old != nil && old.node.isDir() && n.isDir() {
		old.node.attr, old.layer = n.attr, b.layer
		return nil
	}
	if old != nil && old.node == n {
		old.layer = b.layer // linked to itself
		return nil
	}
	n.links++ // before the old one goes: n may be a file below it
	if old != nil {
		if err := b.drop(old.node); err != nil {
			return err
		}
	}
	dir.children[name] = &dirent{node: n, layer: b.layer}
	return nil
}

// drop takes one name away from a node, and frees it with all below when that was the last.
func (b *Builder) drop(n *node) error {
	if n.links--; n.links > 0 {
		return nil
	}
	for _, name := range n.sortedNames() {
		if err := b.drop(n.children[name].node); err != nil {
			return err
		}
	}
	return b.release(n.extents)
}

// prune removes from a directory entry everything that older layers made; it reports whether nothing is left of it.
func (b *Builder) prune(d *dirent) (gone bool, err error) {
	if d.node.isDir() {
		if err := b.pruneChildren(d.node); err != nil {
			return false, err
		}
	}
	if d.layer >= b.layer || len(d.node.children) > 0 {
		return false, nil
	}
	return true, b.drop(d.node)
}

func (b *Builder) pruneChildren(dir *node) error {
	for _, name := range dir.sortedNames() {
		gone, err := b.prune(dir.children[name])
		if err != nil {
			return err
		}
		if gone {
			delete(dir.children, name)
		}
	}
	return nil
}

// NextLayer says that what follows comes from the next layer above.
func (b *Builder) NextLayer() { b.layer++ }

// Whiteout removes what older layers have at the path. Nothing there is no error.
func (b *Builder) Whiteout(p string) error {
	dir, name, err := b.parent(p, false)
	if err != nil || name == "" {
		return nil // no such directory: nothing to hide
	}
	d := dir.children[name]
	if d == nil {
		return nil
	}
	gone, err := b.prune(d)
	if gone {
		delete(dir.children, name)
	}
	return err
}

// Opaque hides everything that older layers have in the directory.
func (b *Builder) Opaque(p string) error {
	w := &walker{b: b, create: true, stack: []*node{b.root}}
	if err := w.walk(path.Clean("/" + p)); err != nil {
		return err
	}
	return b.pruneChildren(w.at())
}

// Dir makes a directory, or changes the attributes of the one that is there.
func (b *Builder) Dir(p string, attr Attr) error { return b.put(p, newDir(attr)) }

// Symlink makes a symbolic link.
func (b *Builder) Symlink(p string, attr Attr, target string) error {
	if target == "" || len(target) >= BlockSize {
		return inputErrorf("%q: a symbolic link's target has 1 to %d bytes, not %d", p, BlockSize-1, len(target))
	}
	return b.put(p, &node{attr: attr, kind: typeSymlink, target: target, size: int64(len(target))})
}

// Link gives the file at target another name.
func (b *Builder) Link(p, target string) error {
	dir, name, err := b.parent(target, false)
	if err != nil {
		return fmt.Errorf("hard link %q to %q: %w", p, target, err)
	}
	d := dir.children[name]
	switch {
	case d == nil:
		return inputErrorf("hard link %q to %q, which does not exist", p, target)
	case d.node.isDir():
		return inputErrorf("hard link %q to the directory %q", p, target)
	case d.node.links >= maxLinks:
		return inputErrorf("hard link %q: %q has %d names already", p, target, maxLinks)
	}
	return b.put(p, d.node)
}

// Device makes a character or block device.
func (b *Builder) Device(p string, attr Attr, block bool, major, minor uint32) error {
	kind := uint16(typeChar)
	if block {
		kind = typeBlock
	}
	if major > 0xfff || minor > 0xfffff {
		return inputErrorf("%q: device number %d:%d is out of range", p, major, minor)
	}
	return b.put(p, &node{attr: attr, kind: kind, device: uint64(major)<<32 | uint64(minor)})
}

// FIFO makes a named pipe.
func (b *Builder) FIFO(p string, attr Attr) error { return b.put(p, &node{attr: attr, kind: typeFIFO}) }
