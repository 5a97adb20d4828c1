package drover

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "h1": true, "my-app-2": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a_b": false, "a.b": false, "ü": false, strings.Repeat("a", 64): false,
	} {
		if ValidName(name) != want {
			t.Errorf("ValidName(%q) is %v", name, !want)
		}
	}
	for name, want := range map[string]bool{"data": true, "pg_data_1": true, "": false, "a-b": false, "A": false, strings.Repeat("a", 31): false} {
		if ValidVolumeName(name) != want {
			t.Errorf("ValidVolumeName(%q) is %v", name, !want)
		}
	}
}

func TestLayersOfADiskNeverShareAName(t *testing.T) {
	disk := NewVolumeID().Disk()
	seen := map[LayerID]bool{}
	for _, m := range []MigrationID{"", NewMigrationID(), NewMigrationID()} {
		if l := LayerFor(disk, m); seen[l] {
			t.Errorf("two layers are called %s", l)
		} else {
			seen[l] = true
		}
	}
}
