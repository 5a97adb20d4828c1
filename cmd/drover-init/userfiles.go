package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"drover/guest"
)

// writeUserFiles writes the files of the config, each as a whole, for the machine's user. One that is there as it should be is left alone.
func writeUserFiles(files []guest.File, user identity) error {
	for _, f := range files {
		if err := writeUserFile(f, int(user.uid), int(user.gid)); err != nil {
			return fmt.Errorf("cannot write the file %s of the machine's config: %w", f.Path, err)
		}
	}
	return nil
}

func writeUserFile(f guest.File, uid, gid int) error {
	name := filepath.Clean("/" + f.Path)
	if err := makeDir(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if !hasContent(name, f.Data) {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = file.Write(f.Data)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	if err := unix.Lchown(name, uid, gid); err != nil {
		return err
	}
	return unix.Chmod(name, f.Mode) // after chown, which takes set-user-ID away
}

// hasContent reports whether a regular file has exactly the content.
func hasContent(name string, data []byte) bool {
	st, err := os.Lstat(name)
	if err != nil || !st.Mode().IsRegular() || st.Size() != int64(len(data)) {
		return false
	}
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close() // only read
	now, err := io.ReadAll(io.LimitReader(f, int64(len(data))+1))
	return err == nil && bytes.Equal(now, data)
}
