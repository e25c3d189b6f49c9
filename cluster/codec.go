package cluster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"clade/membership"
	"clade/raid"
)

// The peer protocol: after the handshake both sides send frames
//
//	length u32 | crc32c u32 | kind u8 | relayed u8 [from u64 to u64] | body
//
// all big-endian. length counts what follows the checksum, which covers the same bytes. Blocks stand raw at the end of the
// body: they are gathered when sent and views of the frame when received.
const (
	FrameHeaderBytes = 8
	MessageBytesMax  = 16 << 20
	ProtocolVersion  = 1
	listMax          = 1 << 20
)

// The kinds of messages on the wire; part of the format.
const (
	wireRaft = iota + 1
	wireRequest
	wireReply
	wireHeartbeat
	wireHeartbeatAck
	wireRevoke
	wireRevokeReply
	wireDead
	wireAdmin
	wireAdminReply
	wireRelease
)

// ErrMalformed is what every undecodable message wraps.
var ErrMalformed = errors.New("malformed peer message")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Hello is the first frame of a connection, in JSON: who is there, and what it can do. It is how a node of another cluster, an
// older protocol or a newer feature level is told why it cannot talk.
type Hello struct {
	Magic    string          `json:"magic"`
	Protocol int             `json:"protocol"`
	Feature  int             `json:"feature"`
	Cluster  membership.UUID `json:"cluster"`
	Node     raid.NodeID     `json:"node"`
	Name     string          `json:"name"`
	Purpose  string          `json:"purpose"` // "peer", "guardian" or "join"
	RealNs   int64           `json:"real_ns"` // wall clock, to warn of a wrong one
}

// HelloMagic opens every Hello.
const HelloMagic = "clade-peer"

// Seal fills the length and checksum of the frame that begins at hdr[0:8], whose body is the rest of hdr and payload.
func Seal(hdr []byte, payload [][]byte) error {
	n := len(hdr) - FrameHeaderBytes
	crc := crc32.Update(0, castagnoli, hdr[FrameHeaderBytes:])
	for _, p := range payload {
		n += len(p)
		crc = crc32.Update(crc, castagnoli, p)
	}
	if n > MessageBytesMax {
		return fmt.Errorf("peer message of %d bytes is longer than %d", n, MessageBytesMax)
	}
	binary.BigEndian.PutUint32(hdr, uint32(n))
	binary.BigEndian.PutUint32(hdr[4:], crc)
	return nil
}

// FrameLength reads the length of the body from a frame's first eight bytes.
func FrameLength(h []byte) (int, error) {
	n := binary.BigEndian.Uint32(h)
	if n > MessageBytesMax {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, n, MessageBytesMax)
	}
	return int(n), nil
}

// CheckFrame compares a body with the checksum in its frame's first eight bytes.
func CheckFrame(h, body []byte) error {
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(h[4:]) {
		return fmt.Errorf("%w: checksum", ErrMalformed)
	}
	return nil
}

// EncodeMessage appends the frame of m to hdr, which must be empty, without the raw blocks: those are returned, to be
// gathered behind it. Nothing of m is copied but its small fields.
func EncodeMessage(hdr []byte, m *PeerMessage) (head []byte, payload [][]byte, err error) {
	w := writer{b: append(hdr, make([]byte, FrameHeaderBytes)...)}
	kind, body := byte(0), any(nil)
	switch {
	case m.Raft != nil:
		kind = wireRaft
	case m.Request != nil:
		kind = wireRequest
	case m.Reply != nil:
		kind = wireReply
	case m.Heartbeat != nil:
		kind, body = wireHeartbeat, m.Heartbeat
	case m.HeartbeatAck != nil:
		kind, body = wireHeartbeatAck, m.HeartbeatAck
	case m.Revoke != nil:
		kind, body = wireRevoke, m.Revoke
	case m.RevokeReply != nil:
		kind, body = wireRevokeReply, m.RevokeReply
	case m.Dead != nil:
		kind, body = wireDead, m.Dead
	case m.Admin != nil:
		kind, body = wireAdmin, m.Admin
	case m.AdminReply != nil:
		kind, body = wireAdminReply, m.AdminReply
	case m.ReleaseVolume != nil:
		kind, body = wireRelease, m.ReleaseVolume
	default:
		return nil, nil, fmt.Errorf("%w: empty", ErrMalformed)
	}
	w.u8(kind)
	if m.Relay != nil {
		w.u8(1)
		w.u64(uint64(m.Relay.From))
		w.u64(uint64(m.Relay.To))
	} else {
		w.u8(0)
	}
	switch kind {
	case wireRaft:
		w.b, err = proto.MarshalOptions{}.MarshalAppend(w.b, m.Raft)
	case wireRequest:
		w.request(m.Request)
	case wireReply:
		w.reply(m.Reply)
	default:
		var j []byte
		j, err = json.Marshal(body)
		w.b = append(w.b, j...)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("encode peer message: %w", err)
	}
	return w.b, w.payload, Seal(w.b, w.payload)
}

// DecodeMessage reads a body whose checksum is right. Blocks of the result are views of body, which belongs to the message from
// then on.
func DecodeMessage(body []byte) (*PeerMessage, error) {
	r := reader{b: body}
	kind, relayed := r.u8(), r.u8()
	m := &PeerMessage{}
	if relayed == 1 {
		m.Relay = &Relay{From: raid.NodeID(r.u64()), To: raid.NodeID(r.u64())}
	}
	if r.failed || relayed > 1 {
		return nil, fmt.Errorf("%w: header", ErrMalformed)
	}
	var into any
	switch kind {
	case wireRaft:
		m.Raft = &raftpb.Message{}
		if err := proto.Unmarshal(r.b, m.Raft); err != nil {
			return nil, fmt.Errorf("%w: raft: %w", ErrMalformed, err)
		}
		return m, nil
	case wireRequest:
		m.Request = r.request()
	case wireReply:
		m.Reply = r.reply()
	case wireHeartbeat:
		m.Heartbeat = &Heartbeat{}
		into = m.Heartbeat
	case wireHeartbeatAck:
		m.HeartbeatAck = &membership.HeartbeatAck{}
		into = m.HeartbeatAck
	case wireRevoke:
		m.Revoke = &membership.RevokeRequest{}
		into = m.Revoke
	case wireRevokeReply:
		m.RevokeReply = &membership.RevokeReply{}
		into = m.RevokeReply
	case wireDead:
		m.Dead = &membership.NodeTerm{}
		into = m.Dead
	case wireAdmin:
		m.Admin = &AdminRequest{}
		into = m.Admin
	case wireAdminReply:
		m.AdminReply = &AdminReply{}
		into = m.AdminReply
	case wireRelease:
		m.ReleaseVolume = &ReleaseVolume{}
		into = m.ReleaseVolume
	default:
		return nil, fmt.Errorf("%w: kind %d", ErrMalformed, kind)
	}
	if into != nil {
		if len(r.b) > 1<<20 {
			return nil, fmt.Errorf("%w: kind %d of %d bytes", ErrMalformed, kind, len(r.b))
		}
		if err := json.Unmarshal(r.b, into); err != nil {
			return nil, fmt.Errorf("%w: kind %d: %w", ErrMalformed, kind, err)
		}
		return m, nil
	}
	if r.failed || len(r.b) != 0 {
		return nil, fmt.Errorf("%w: kind %d", ErrMalformed, kind)
	}
	return m, nil
}
