package natsbus

import (
	"bytes"
	"context"
	"testing"
	"time"

	"drover"
	"drover/internal/testkit/storetest"
)

func TestObjects(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	n := 0
	storetest.Run(t, namesAtOnce+10, func(t *testing.T) drover.ObjectStore {
		n++
		return NewObjects(conn, "test-"+string(rune('a'+n)), ObjectOptions{Replicas: 1})
	})
}

// The store is made like the fleet's other buckets, by whoever needs it first, once those are there; and it is the same for all.
func TestObjectsAppearWithTheFleetsBuckets(t *testing.T) {
	dir := t.TempDir()
	srv := startServer(t, dir, 0)
	conn := connect(t, srv.ClientURL())
	first, second := NewObjects(conn, StreamSnapshots, ObjectOptions{}), NewObjects(conn, StreamSnapshots, ObjectOptions{})
	wantCode(t, first.Put(t.Context(), "v/a", []byte("x")), drover.Unavailable)
	open[drover.Volume](t, conn, BucketVolumes)
	eventually(t, "the store can be written", func() bool { return first.Put(t.Context(), "v/a", []byte("x")) == nil })
	if got, err := second.Get(t.Context(), "v/a"); err != nil || string(got) != "x" {
		t.Fatalf("%q, %v", got, err)
	}
	port := portOf(t, srv)
	srv.Shutdown()
	_, err := second.Get(t.Context(), "v/a")
	wantCode(t, err, drover.Unavailable)
	startServer(t, dir, port)
	eventually(t, "the object can be read again", func() bool {
		got, err := second.Get(t.Context(), "v/a")
		return err == nil && string(got) == "x"
	})
}

// An object that was written in part is not there.
func TestObjectsAreThereWholeOrNotAtAll(t *testing.T) {
	conn := connect(t, startServer(t, t.TempDir(), 0).ClientURL())
	o := NewObjects(conn, "test", ObjectOptions{Replicas: 1})
	big := bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16)
	if err := o.Put(t.Context(), "v/big", big); err != nil {
		t.Fatal(err)
	}
	if err := o.Put(t.Context(), "v/big/0", []byte("another")); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"1", "0"} {
		s, err := o.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.GetLastMsgForSubject(t.Context(), o.subject("v/big")+"."+part)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteMsg(t.Context(), m.Sequence); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Get(t.Context(), "v/big"); !drover.Is(err, drover.NotFound) {
			t.Fatalf("without part %s: %v", part, err)
		}
	}
	if there, err := o.Has(t.Context(), "v/big"); there || err != nil {
		t.Fatalf("%v, %v", there, err)
	}
	var names []string
	if err := o.List(t.Context(), "v/", func(name string, _ drover.Bytes) error { names = append(names, name); return nil }); err != nil || len(names) != 1 || names[0] != "v/big/0" {
		t.Fatalf("%v, %v", names, err)
	}
	if err := o.Delete(t.Context(), "v/big"); err != nil {
		t.Fatal(err)
	}
	if got, err := o.Get(t.Context(), "v/big/0"); err != nil || string(got) != "another" {
		t.Fatalf("the neighbour is %q, %v", got, err)
	}
}

func TestObjectsOfThreeServers(t *testing.T) {
	var conns []*Conn
	for _, s := range startCluster(t) {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a server does not get ready")
		}
		conns = append(conns, connect(t, s.ClientURL()))
	}
	o := NewObjects(conns[0], "test", ObjectOptions{Replicas: 3})
	eventually(t, "the store can be written", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), opTimeout)
		defer cancel()
		return o.Put(ctx, "v/a", []byte("x")) == nil
	})
	for i := range 50 {
		name, want := "v/"+string(rune('A'+i%26))+string(rune('0'+i/26)), bytes.Repeat([]byte{byte(i)}, 1000)
		if err := o.Put(t.Context(), name, want); err != nil {
			t.Fatal(err)
		}
		reader := NewObjects(conns[i%len(conns)], "test", ObjectOptions{})
		if got, err := reader.Get(t.Context(), name); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s was put and reads as %d bytes, %v", name, len(got), err)
		}
	}
}
