package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"clade/cluster"
	"clade/membership"
	"clade/raid"
)

// The handshake: each side sends one frame of JSON, first the one that dialled. It is the same for all purposes, so that a
// connection of any version and any cluster gets an answer that says what is wrong.
const (
	helloBytesMax = 64 << 10
	helloTimeout  = 3 * time.Second
	joinTimeout   = 15 * time.Second
)

// What a connection is for.
const (
	purposePeer  = "peer"     // messages follow
	purposeDeath = "guardian" // the guardian's word (A.2); the answer ends the connection
	purposeJoin  = "join"     // a node wants to become a member; the answer ends the connection
)

// hello is what the dialling side says: Cluster and Node are zero for a join.
type hello struct {
	cluster.Hello
	To   raid.NodeID          `json:"to"` // 0: whoever answers
	Term raid.Term            `json:"term,omitempty"`
	Join *membership.NodeJoin `json:"join,omitempty"`

	DiskAdd *membership.DiskAdd `json:"disk_add,omitempty"` // of a node that is joining
	Key     membership.UUID     `json:"key"`                // that node's
}

// welcome is what the listening side answers. Err says why it closes the connection, fit for an operator.
type welcome struct {
	cluster.Hello
	Err    string              `json:"err,omitempty"`
	Joined *joined             `json:"joined,omitempty"`
	Disk   *cluster.AdminReply `json:"disk,omitempty"`
}

// joined is what a new member needs to know.
type joined struct {
	Node        raid.NodeID `json:"node"`
	Name        string      `json:"name"` // of the cluster
	Shelf       uint16      `json:"shelf"`
	SectorCount uint8       `json:"sector_count"`
	Members     []Peer      `json:"members"`
}

// refusedError is a peer's own word on why it will not talk.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return e.why }

// newHello returns what this process says of itself.
func newHello(purpose string, id Identity) cluster.Hello {
	return cluster.Hello{Magic: cluster.HelloMagic, Protocol: cluster.ProtocolVersion, Feature: membership.MaxFeatureLevel,
		Cluster: id.Cluster, Node: id.Node, Name: id.Name, Purpose: purpose, RealNs: realNs()}
}

func writeHello(w io.Writer, v any) error {
	frame := bytes.NewBuffer(make([]byte, cluster.FrameHeaderBytes))
	if err := json.NewEncoder(frame).Encode(v); err != nil {
		return fmt.Errorf("runtime: handshake: %w", err)
	}
	if frame.Len() > helloBytesMax {
		return fmt.Errorf("runtime: handshake of %d bytes, at most %d", frame.Len(), helloBytesMax)
	}
	if err := cluster.Seal(frame.Bytes(), nil); err != nil {
		return fmt.Errorf("runtime: handshake: %w", err)
	}
	if _, err := w.Write(frame.Bytes()); err != nil {
		return fmt.Errorf("runtime: handshake: %w", err)
	}
	return nil
}

// readHello reads one side's word into v, whose Hello is h.
func readHello(r io.Reader, v any, h *cluster.Hello) error {
	var head [cluster.FrameHeaderBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("runtime: handshake: %w", err)
	}
	n, err := cluster.FrameLength(head[:])
	if err != nil || n > helloBytesMax {
		return errors.New("runtime: handshake: what is there does not speak clade's peer protocol")
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("runtime: handshake: %w", err)
	}
	if err := cluster.CheckFrame(head[:], body); err != nil {
		return fmt.Errorf("runtime: handshake: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("runtime: handshake: %w", err)
	}
	switch {
	case h.Magic != cluster.HelloMagic:
		return errors.New("runtime: handshake: what is there does not speak clade's peer protocol")
	case h.Protocol != cluster.ProtocolVersion:
		return fmt.Errorf("runtime: handshake: the other side speaks protocol %d, this binary %d: upgrade the older one", h.Protocol, cluster.ProtocolVersion)
	}
	return nil
}

// greet is the dialling side's handshake. A refusal is a refusedError.
func greet(c net.Conn, h hello) (welcome, error) {
	var w welcome
	_ = c.SetDeadline(time.Now().Add(helloTimeout)) // a connection without deadlines ends with the process
	defer c.SetDeadline(time.Time{})                //nolint:errcheck // as above
	if err := writeHello(c, h); err != nil {
		return w, err
	}
	if err := readHello(c, &w, &w.Hello); err != nil {
		return w, err
	}
	switch {
	case w.Err != "":
		return w, &refusedError{w.Err}
	case h.Cluster != membership.UUID{} && w.Cluster != h.Cluster:
		return w, &refusedError{"the node there belongs to another cluster"}
	case h.To != 0 && w.Node != h.To:
		return w, &refusedError{fmt.Sprintf("node %d answers where node %d was expected", w.Node, h.To)}
	}
	return w, nil
}

// call makes a connection for one question and its answer.
func (t Transport) call(ctx context.Context, addr string, h hello) (welcome, error) {
	c, err := t.dial(ctx, addr)
	if err != nil {
		return welcome{}, err
	}
	defer c.Close() //nolint:errcheck // one question, one answer, and both are over
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return greet(c, h)
}

// sendDeath tells one peer of a proved death (A.2).
func sendDeath(ctx context.Context, d death, p Peer) error {
	_, err := Transport{}.call(ctx, p.Addr, hello{Hello: newHello(purposeDeath, d.id), To: p.Node, Term: d.term})
	return err
}
