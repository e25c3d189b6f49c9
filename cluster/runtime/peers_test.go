package runtime

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"

	"clade/cluster"
	"clade/membership"
	"clade/raid"
)

func pair(t *testing.T) (a, b *mesh, ca, cb *collected) {
	t.Helper()
	id := Identity{Cluster: newUUID()}
	ca, cb = newCollected(), newCollected()
	one, two := id, id
	one.Node, one.Name, two.Node, two.Name = 1, "n1", 2, "n2"
	return newTestMesh(t, one, ca.put), newTestMesh(t, two, cb.put), ca, cb
}

func ups(items []any) (out []*peerConn) {
	for _, x := range items {
		if u, ok := x.(connUp); ok {
			out = append(out, u.conn)
		}
	}
	return out
}

func messages(items []any) (out []*cluster.PeerMessage) {
	for _, x := range items {
		if f, ok := x.(peerFrames); ok {
			out = append(out, f.msgs...)
		}
	}
	return out
}

// request is a data message; ack is one of the lease, which may overtake it.
func request(n int) *cluster.PeerMessage {
	block := bytes.Repeat([]byte{byte(n)}, raid.BlockBytes)
	return &cluster.PeerMessage{Request: &raid.DiskRequest{Kind: raid.ReqPrepare, Vol: 1, Disk: 2, Epoch: 1, Stream: 1,
		Rec: &raid.Record{Epoch: 1, Seq: raid.Seq(n), Parts: raid.NewDiskSet(2), Blocks: []raid.Block{{No: uint32(n), Data: block}}}}}
}

func ack(n int) *cluster.PeerMessage {
	return &cluster.PeerMessage{HeartbeatAck: &membership.HeartbeatAck{From: 1, Node: 2, ID: uint64(n)}}
}

func TestPeersMeetAndSpeakInOrder(t *testing.T) {
	a, b, ca, cb := pair(t)
	a.setPeers([]Peer{{2, b.listener.Addr().String()}})
	conn := ups(ca.until(t, "connection at n1", func(x []any) bool { return len(ups(x)) > 0 }))[0]
	cb.until(t, "connection at n2", func(x []any) bool { return len(ups(x)) > 0 })
	const n = 500
	for i := 1; i <= n; i++ {
		for _, m := range []*cluster.PeerMessage{request(i), ack(i)} {
			if !conn.out.put(m, messageBytes(m), isControl(m)) {
				t.Fatal("queue full")
			}
		}
	}
	got := messages(cb.until(t, "all messages", func(x []any) bool { return len(messages(x)) == 2*n }))
	data, acks := 0, 0
	for _, m := range got {
		switch {
		case m.Request != nil:
			data++
			b := m.Request.Rec.Blocks[0]
			if int(m.Request.Rec.Seq) != data || b.Data[0] != byte(data) || b.Data[raid.BlockBytes-1] != byte(data) {
				t.Fatalf("request %d arrived as number %d", m.Request.Rec.Seq, data)
			}
		case m.HeartbeatAck != nil:
			acks++
			if int(m.HeartbeatAck.ID) != acks {
				t.Fatalf("acknowledgement %d arrived as number %d", m.HeartbeatAck.ID, acks)
			}
		}
	}
}

func TestControlOvertakesDataInTheQueue(t *testing.T) {
	q := newLanes[*cluster.PeerMessage](1 << 30)
	for i := range 1000 {
		m := request(i)
		q.put(m, messageBytes(m), isControl(m))
	}
	hb := ack(1)
	q.put(hb, messageBytes(hb), isControl(hb))
	out, ok := q.take(nil, peerBatchBytes, messageBytes)
	if !ok || out[0] != hb || len(out) > 200 {
		t.Fatalf("first of %d taken is %+v", len(out), out[0])
	}
}

func TestAFullQueueTakesNothingMore(t *testing.T) {
	q := newLanes[int](100)
	one := func(int) int { return 60 }
	if !q.put(1, 60, false) || q.put(2, 60, false) {
		t.Fatal("the bound does not hold")
	}
	if out, _ := q.take(nil, 1, one); len(out) != 1 || q.queued() != 0 || !q.put(3, 60, false) {
		t.Fatalf("after a take: %v, %d bytes", out, q.queued())
	}
	q.close()
	if _, ok := q.take(nil, 1, one); ok || q.put(4, 1, true) {
		t.Fatal("a closed queue still works")
	}
}

func TestABrokenConnectionIsReportedOnceAndMadeAgain(t *testing.T) {
	a, b, ca, cb := pair(t)
	a.setPeers([]Peer{{2, b.listener.Addr().String()}})
	b.setPeers([]Peer{{1, a.listener.Addr().String()}})
	first := ups(cb.until(t, "first connection", func(x []any) bool { return len(ups(x)) > 0 }))[0]
	ca.until(t, "first connection", func(x []any) bool { return len(ups(x)) > 0 })
	first.kill()
	items := cb.until(t, "a second connection", func(x []any) bool {
		for _, c := range ups(x) {
			if c != first {
				return true
			}
		}
		return false
	})
	state := map[*peerConn]string{}
	for _, x := range items {
		switch x := x.(type) {
		case connUp:
			state[x.conn] += "u"
		case peerFrames:
			state[x.conn] += "f"
		case connDown:
			state[x.conn] += "d"
		}
	}
	for c, s := range state {
		if !strings.HasPrefix(s, "u") || strings.Contains(strings.TrimSuffix(s, "d"), "d") {
			t.Errorf("connection %p reported %q: want u, f..., d", c, s)
		}
	}
}

func TestHandshakeRefusesWithAReason(t *testing.T) {
	a, _, _, _ := pair(t)
	addr := a.listener.Addr().String()
	other := Identity{Cluster: newUUID(), Node: 2}
	mine := Identity{Cluster: a.id.Cluster, Node: 2}
	self := Identity{Cluster: a.id.Cluster, Node: 1}
	old := newHello(purposePeer, mine)
	old.Protocol = 99
	for _, test := range []struct {
		name string
		h    hello
		want string
	}{
		{"another cluster", hello{Hello: newHello(purposePeer, other), To: 1}, "belongs to cluster"},
		{"another node", hello{Hello: newHello(purposePeer, mine), To: 3}, "this is node 1, not 3"},
		{"the same node", hello{Hello: newHello(purposePeer, self), To: 1}, "copied"},
		{"an unknown purpose", hello{Hello: newHello("dance", mine), To: 1}, "unknown purpose"},
	} {
		_, err := Transport{}.call(t.Context(), addr, test.h)
		var refused *refusedError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want a refusal with %q", test.name, err, test.want)
		}
	}
	if _, err := (Transport{}).call(t.Context(), addr, hello{Hello: old}); err == nil {
		t.Error("a newer protocol was accepted")
	}
}

func TestGarbageOnTheClusterPortCostsNothing(t *testing.T) {
	a, _, ca, _ := pair(t)
	for _, garbage := range []string{"", "x", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 4096), "\x00\x00\x00\x05\x00\x00\x00\x00hello"} {
		c, err := net.Dial("tcp", a.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		if _, err := bufio.NewReader(c).ReadByte(); err == nil {
			t.Errorf("%q got an answer", garbage)
		}
		_ = c.Close()
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if len(ca.items) != 0 {
		t.Fatalf("the core heard %v", ca.items)
	}
}

func TestMalformedMessageBreaksTheConnection(t *testing.T) {
	a, _, ca, _ := pair(t)
	c, err := net.Dial("tcp", a.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := greet(c, hello{Hello: newHello(purposePeer, Identity{Cluster: a.id.Cluster, Node: 2}), To: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("\x00\x00\x00\x05\x00\x00\x00\x00hello")); err != nil {
		t.Fatal(err)
	}
	items := ca.until(t, "the end", func(x []any) bool {
		if len(x) == 0 {
			return false
		}
		_, ok := x[len(x)-1].(connDown)
		return ok
	})
	if d := items[len(items)-1].(connDown); !errors.Is(d.err, cluster.ErrMalformed) {
		t.Fatalf("the connection ended with %v", d.err)
	}
}

func TestCrossedConnectionsKeepTheSameOneOnBothSides(t *testing.T) {
	by := func(dialled raid.NodeID, since int64) *peerConn { return &peerConn{dialled: dialled, since: since} }
	for _, test := range []struct {
		name     string
		new, old *peerConn
		want     bool
	}{
		{"crossed, the larger id's is new", by(2, 5), by(1, 0), true},
		{"crossed, the larger id's is old", by(1, 5), by(2, 0), false},
		{"the same side once more", by(1, 5), by(1, 0), true},
		{"the old one is old", by(1, 2*crossedWithin), by(2, 0), true},
	} {
		if got := test.new.replaces(test.old); got != test.want {
			t.Errorf("%s: replaces %t, want %t", test.name, got, test.want)
		}
	}
}

// What the core sends itself and what it leaves to the writer arrive as one stream, also when the kernel takes a part only.
func TestTheCoreAndTheWriterSendOneStream(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	p, err := newPeerConn(2, 1, near, realNs(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	n := 0
	send := func() {
		n++
		m := request(n)
		for range n % 14 {
			m.Request.Rec.Blocks = append(m.Request.Rec.Blocks, m.Request.Rec.Blocks[0])
		}
		if !p.out.add(m, messageBytes(m), isControl(m)) {
			t.Fatal("queue full")
		}
		p.flush()
	}
	for !p.out.behind { // nobody reads, and the writer does not run yet
		send()
	}
	for range 20 {
		send()
	}
	go p.write()
	next, d := 0, newDecoder()
	read := func() {
		m := receive(t, far, d)
		if next++; int(m.Request.Rec.Seq) != next || len(m.Request.Rec.Blocks) != 1+next%14 {
			t.Fatalf("message %d with %d blocks arrived as number %d", m.Request.Rec.Seq, len(m.Request.Rec.Blocks), next)
		}
	}
	for range 2000 {
		read()
		send()
	}
	for next < n {
		read()
	}
}

// receive reads the next message of a connection.
func receive(t *testing.T, c net.Conn, d *decoder) *cluster.PeerMessage {
	t.Helper()
	for {
		m, _, err := d.next()
		if err != nil {
			t.Fatal(err)
		}
		if m != nil {
			return m
		}
		n, err := c.Read(d.room())
		if err != nil {
			t.Fatal(err)
		}
		d.got(n)
	}
}

// Messages are the same however the stream is cut, and whether they fit the buffer or not.
func TestMessagesArriveHoweverTheStreamIsCut(t *testing.T) {
	var stream []byte
	var e encoder
	const n = 300
	for i := 1; i <= n; i++ {
		m := request(i)
		for range []int{0, 1, 13, 120}[i%4] {
			m.Request.Rec.Blocks = append(m.Request.Rec.Blocks, m.Request.Rec.Blocks[0])
		}
		for _, b := range e.encode([]*cluster.PeerMessage{m}) {
			stream = append(stream, b...)
		}
	}
	for _, most := range []int{1, 7, 4096, 100_000, 1 << 20} {
		d, rest, next := newDecoder(), stream, 0
		for len(rest) > 0 {
			took := copy(d.room(), rest[:min(most, len(rest))])
			if took == 0 {
				t.Fatal("no room for what follows")
			}
			rest = rest[took:]
			d.got(took)
			for {
				m, _, err := d.next()
				if err != nil {
					t.Fatal(err)
				}
				if m == nil {
					break
				}
				next++
				last := m.Request.Rec.Blocks[len(m.Request.Rec.Blocks)-1]
				if int(m.Request.Rec.Seq) != next || last.Data[raid.BlockBytes-1] != byte(next) {
					t.Fatalf("at most %d bytes at a time: message %d arrived as number %d", most, m.Request.Rec.Seq, next)
				}
			}
		}
		if next != n {
			t.Errorf("at most %d bytes at a time: %d messages of %d", most, next, n)
		}
	}
}

func TestAStoppedReaderHoldsThePeerBack(t *testing.T) {
	a, b, ca, cb := pair(t)
	a.setPeers([]Peer{{2, b.listener.Addr().String()}})
	conn := ups(ca.until(t, "connection", func(x []any) bool { return len(ups(x)) > 0 }))[0]
	big := request(1)
	for range 300 { // 1 MiB each, more than the reader may have in the inbox
		big.Request.Rec.Blocks = append(big.Request.Rec.Blocks, big.Request.Rec.Blocks[0])
	}
	n := 0
	for n < 200 && conn.out.put(big, messageBytes(big), false) {
		n++
	}
	// The core takes nothing: the reader must stop at its bound.
	var at *peerConn
	cb.until(t, "a full inbox", func(x []any) bool {
		for _, c := range ups(x) {
			at = c
		}
		return at != nil && at.inbox.Load() > peerInboxBytesMax
	})
	if got := at.inbox.Load(); got > peerInboxBytesMax+4<<20 {
		t.Fatalf("the inbox holds %d bytes of one peer", got)
	}
	taken := 0
	cb.until(t, "the rest", func(x []any) bool {
		for _, i := range x[taken:] {
			if f, ok := i.(peerFrames); ok {
				f.conn.consumed(f.bytes)
			}
		}
		taken = len(x)
		return len(messages(x)) == n
	})
}

func FuzzReadHello(f *testing.F) {
	var b bytes.Buffer
	if err := writeHello(&b, hello{Hello: newHello(purposePeer, Identity{Node: 1})}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var h hello
		_ = readHello(bytes.NewReader(data), &h, &h.Hello)
		d := newDecoder()
		for len(data) > 0 {
			n := copy(d.room(), data[:1+len(data)/2])
			data = data[n:]
			d.got(n)
			for {
				m, _, err := d.next()
				if err != nil {
					return
				}
				if m == nil {
					break
				}
			}
			if len(d.room()) == 0 {
				t.Fatal("no room for what follows")
			}
		}
	})
}
