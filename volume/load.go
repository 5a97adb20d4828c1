package volume

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"drover"
	"drover/internal/durable"
	"drover/manifest"
)

// The files of a layer's directory. Those of the content have names that end in meta.Files.
const (
	metaFile = "meta.json"
	dataFile = "data"
	mapName  = "map"
)

// contentNames begin the names of the files that a content consists of, and that change hands with it. It is never written to.
var contentNames = [...]string{dataFile, mapName, sumsName}

// withoutMap are the files that a content of another size, or one with more blocks, can share.
func withoutMap() []string {
	return slices.DeleteFunc(slices.Clone(contentNames[:]), func(name string) bool { return name == mapName })
}

// fileName is the name of one of the content's files.
func fileName(name, files string) string {
	if files == "" {
		return name
	}
	return name + "." + files
}

// env is what the layers of a pool share.
type env struct {
	pool, run string
	boot      string
	cfg       Config
	budget    *budget
	reserve   *reserve
	settings  *settings
	space     *space
	dial      dialFunc
	// changed is called when an unwanted layer may have to wait no more.
	changed func()
	// codec and chunks are for snapshots in the object store.
	codec  *manifest.Codec
	chunks *chunkCache
	// snapshots finds what layers should hold by a snapshot; nil without an object store.
	snapshots snapshotSums
	// find finds a layer of the pool.
	find func(drover.LayerID) (*layer, error)
}

func (e *env) layerDir(id drover.LayerID) string { return filepath.Join(e.pool, "layers", string(id)) }

// livePath is the live map of a content. Before contents could change hands it was named after the layer.
func (e *env) livePath(m *meta) string { return filepath.Join(e.run, "maps", m.Incarnation+".map") }

func (e *env) newLayer(m *meta) *layer {
	id := m.Spec.ID
	l := &layer{id: id, dir: e.layerDir(id), env: e, log: e.cfg.Log.With("layer", string(id)), sessions: map[*session]struct{}{}}
	l.frozenData.Store(-1)
	l.record.Store(m)
	l.hydrator.pace = newPace(0, e.settings.hydration)
	if m.Hydration != nil {
		l.hydrator.pace.setLimit(m.Hydration.Limit)
		l.hydrator.pace.pause(m.Hydration.Paused)
	}
	l.hydrator.pace.verification = goOnVerifying(m.Verification)
	return l
}

// loadLayer opens a layer's files. What is below it must be open.
func (e *env) loadLayer(id drover.LayerID) (_ *layer, err error) {
	m, err := readMeta(filepath.Join(e.layerDir(id), metaFile), id)
	if err != nil {
		return nil, err
	}
	l := e.newLayer(m)
	var base *layer
	if m.Spec.Base != "" {
		if base, err = e.find(m.Spec.Base); err != nil {
			return nil, errors.Join(errors.New("its base cannot be used"), err)
		}
	}
	if err := e.takeOldLiveMap(m); err != nil {
		return nil, err
	}
	if err := removeStrayFiles(l.dir, m); err != nil {
		return nil, err
	}
	var under *content
	if base != nil {
		under = base.content()
	}
	c, err := e.openContent(l.dir, m, under, l.log)
	if err != nil {
		return nil, err
	}
	l.take(c, base)
	l.writable = m.Writer
	l.applyLimits()
	if !m.Mapped {
		return l, l.removeLiveMap()
	}
	if err := c.sanitize(c.over.Load()); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return l, l.simplify()
}

// takeOldLiveMap gives the live map of a daemon that named it after the layer the name by which it is looked for.
func (e *env) takeOldLiveMap(m *meta) error {
	old := filepath.Join(e.run, "maps", string(m.Spec.ID)+".map")
	if _, err := os.Stat(old); err != nil {
		return nil // most often there is none; one that cannot be seen does not count
	}
	if _, err := os.Stat(e.livePath(m)); err == nil {
		return nil
	}
	return durable.Rename(old, e.livePath(m))
}

// removeStrayFiles removes the files of contents that the layer does not have: a split, a take-in or a growth was cut before its record
// was written, or after it.
func removeStrayFiles(dir string, m *meta) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, files, _ := strings.Cut(e.Name(), ".")
		for _, known := range contentNames {
			if name == known && (files != m.Files || name == mapName && !m.Mapped) {
				if err := durable.Remove(filepath.Join(dir, e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// openContent opens the files that the record names, in a directory. under is what lies below, nil for nothing; it must not be closed
// meanwhile.
func (e *env) openContent(dir string, m *meta, under *content, log *slog.Logger) (_ *content, err error) {
	path := filepath.Join(dir, fileName(dataFile, m.Files))
	data, err := openData(path, int64(m.Spec.Size), m.State == drover.LayerImage)
	if err != nil {
		return nil, err
	}
	if m.State != drover.LayerImage {
		data.sums = e.openSums(dir, m, log)
	}
	c := newContent(m.Spec.ID, int64(m.Spec.Size), data)
	c.disk, c.sums = m.Spec.Disk, data.sums
	c.space = e.space
	c.faults, c.image = e.cfg.Faults, m.State == drover.LayerImage
	if under != nil {
		err = c.setUnder(under)
	}
	if err == nil && m.Mapped {
		err = e.openOverlay(dir, m, c, log)
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// openOverlay gives the content its map, from the live map if this boot made it, else from the one on disk.
func (e *env) openOverlay(dir string, m *meta, c *content, log *slog.Logger) error {
	head := mapHeader{blocks: int64(m.Spec.Size) / blockSize, incarnation: m.Incarnation, boot: e.boot}
	f, err := openFile(filepath.Join(dir, fileName(mapName, m.Files)), mapFileSize(head.blocks), false)
	if err != nil {
		return err
	}
	table := newMapFile(f, head.blocks)
	stored, err := table.load(m.Incarnation)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	live, found, err := openLiveMap(e.livePath(m), head)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	adopt(live.bitmap, stored, table)
	o := &overlay{present: live.bitmap, table: table, spoil: live.spoil}
	fetched := e.openFetched(o, m, head, log)
	o.release = func() {
		if err := errors.Join(f.Close(), live.close(), fetched.close()); err != nil {
			log.Warn("cannot release the map", "err", err)
		}
	}
	c.setOverlay(o)
	if !found {
		live.seal(head)
	}
	c.parent = e.upstreamOf(m, log)
	if c.parent == nil {
		return nil
	}
	filled := m.filledBlocks()
	based := c.under.Load() != nil
	src := newSource(c.parent, filled*blockSize, based, e.cfg.ParentWait, e.budget)
	if m.Hydration != nil {
		src.copied.Store(int64(m.Hydration.Copied))
		if p, remote := c.parent.(*parent); remote {
			p.traffic.Wire.Store(int64(m.Hydration.Wire))
		}
	}
	if !based {
		o.mark(filled, head.blocks) // what is beyond the parent's end is empty
	}
	o.src.Store(src)
	return nil
}

// adopt adds the stored map to the live one, and remembers which sectors of the stored one are behind.
func adopt(live, stored *bitmap, table *mapFile) {
	for w := range stored.words {
		if live.words[w]&^stored.words[w] != 0 {
			s := int64(w) / sectorWords
			table.dirty.set(s, s+1)
		}
		live.words[w] |= stored.words[w]
	}
}

// simplify makes a layer a plain one whose guest has written every block of it.
func (l *layer) simplify() error {
	c := l.content()
	o := c.enter()
	defer o.leave()
	if o.src.Load() != nil || !o.present.all(0, o.present.n) {
		return nil
	}
	if err := c.Flush(context.Background()); err != nil {
		return err
	}
	if err := l.update(func(m *meta) { m.Mapped = false }); err != nil {
		return err
	}
	c.dropOverlay()
	return l.removeMap()
}

// removeMap removes the maps of a layer that needs none. Those who use them still may do so in peace.
func (l *layer) removeMap() error {
	err := durable.Remove(filepath.Join(l.dir, fileName(mapName, l.meta().Files)))
	return errors.Join(ioError(l.id, "remove the map of", err), l.removeLiveMap())
}

func (l *layer) removeLiveMap() error {
	return ioError(l.id, "remove the live map of", removeLive(l.env.livePath(l.meta())))
}

// removeLive removes a live map, and that of what came from the parent, if there are any.
func removeLive(path string) error {
	var errs []error
	for _, p := range []string{path, path + fetchedSuffix} {
		if err := os.Remove(p); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
