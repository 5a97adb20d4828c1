package natsbus

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"drover"
)

// startCluster starts three servers that replicate.
func startCluster(t *testing.T) []*server.Server {
	t.Helper()
	var routes []*url.URL
	var ports []int
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	var servers []*server.Server
	for i, port := range ports {
		srv, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprintf("s%d", i+1), Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(),
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port}, Routes: routes, NoSigs: true, NoLog: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		t.Cleanup(func() {
			srv.Shutdown()
			srv.WaitForShutdown()
		})
		servers = append(servers, srv)
	}
	return servers
}

func TestThreeServersKeepTheSamePromises(t *testing.T) {
	servers := startCluster(t)
	var urls []string
	for _, s := range servers {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a server does not get ready")
		}
		urls = append(urls, s.ClientURL())
	}
	conn, err := Connect(t.Context(), Config{URLs: urls, Name: "test", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	b, err := OpenBucket[string](ctx, conn, "things", BucketOptions{Replicas: 3})
	if err != nil {
		t.Fatal(err)
	}
	checkCompareAndSet(t, b)
	entries := watchAll(t, b)
	for e := range entries {
		if e.Key == confirmKey {
			t.Fatal("the watch shows the key for confirmations")
		}
		if e.Synced {
			break
		}
	}

	// Whichever server tells, all of the bucket has what was acknowledged before.
	for i := range 30 {
		key := fmt.Sprintf("n%d", i)
		if _, err := b.Create(ctx, key, "there"); err != nil {
			t.Fatal(err)
		}
		all, err := b.All(ctx)
		if err != nil || all[key].Value != "there" {
			t.Fatalf("%s was acknowledged, and All has %v, %v", key, all[key], err)
		}
	}

	// The leader of the bucket goes; what was acknowledged is there.
	_, rev, err := b.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	info, err := b.stream.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		if s.Name() == info.Cluster.Leader {
			s.Shutdown()
		}
	}
	eventually(t, "the others answer", func() bool {
		v, got, err := b.GetConfirmed(ctx, "a")
		return err == nil && v == "three" && got == rev
	})
	_, err = b.Update(ctx, "a", "stale", rev-1)
	wantCode(t, err, drover.Conflict)
	if _, err := b.Update(ctx, "a", "four", rev); err != nil {
		t.Fatal(err)
	}
}
