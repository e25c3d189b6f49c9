package initiator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"clade/aoe"
)

// Identify asks the volume for its size and names.
func (c *Client) Identify(ctx context.Context) (Identity, error) {
	op := &Op{Kind: OpIdentify, Data: make([]byte, SectorBytes)}
	if err := c.Do(ctx, op); err != nil {
		return Identity{}, c.wrap("identify", err)
	}
	return ParseIdentity(op.Data)
}

// ReadAt reads whole sectors from a byte offset.
func (c *Client) ReadAt(ctx context.Context, p []byte, off int64) error {
	return c.transfer(ctx, OpRead, p, off)
}

// WriteAt writes whole sectors at a byte offset. Done means durable. After an
// error any part of it may have been written, or may be later.
func (c *Client) WriteAt(ctx context.Context, p []byte, off int64) error {
	return c.transfer(ctx, OpWrite, p, off)
}

func (c *Client) transfer(ctx context.Context, kind OpKind, p []byte, off int64) error {
	if off < 0 || off%SectorBytes != 0 || len(p)%SectorBytes != 0 {
		return c.wrap(fmt.Sprintf("%s of %d bytes at %d", kind, len(p), off), ErrRange)
	}
	if len(p) == 0 {
		return nil
	}
	err := c.Do(ctx, &Op{Kind: kind, LBA: uint64(off) / SectorBytes, Data: p})
	if err != nil {
		return c.wrap(fmt.Sprintf("%s of %d bytes at %d", kind, len(p), off), err)
	}
	return nil
}

// Flush asks the volume to make all answered writes durable. A volume of ours
// has done that when it answered them.
func (c *Client) Flush(ctx context.Context) error {
	if err := c.Do(ctx, &Op{Kind: OpFlush}); err != nil {
		return c.wrap("flush", err)
	}
	return nil
}

func (c *Client) wrap(what string, err error) error {
	shelf, slot := c.Address()
	return fmt.Errorf("initiator: e%d.%d: %s: %w", shelf, slot, what, err)
}

// Config runs a Query Config command and returns the string in force, also with
// ErrConfigPresent. Read, set and force set only: for the others, silence is an
// answer, see TestConfig.
func (c *Client) Config(ctx context.Context, command ConfigCommand, text []byte) ([]byte, error) {
	request, err := ConfigRequest(command, text)
	if err != nil {
		return nil, err
	}
	op := &Op{Kind: OpConfig, Request: request}
	err = c.Do(ctx, op)
	var parsed ConfigReply
	if op.Reply != nil {
		parsed, _ = ParseConfigReply(op.Reply) // an error answer may be cut short
	}
	if err != nil {
		return parsed.Text, c.wrap("config string", err)
	}
	return parsed.Text, nil
}

// testWait is how long TestConfig takes silence for a maybe.
const testWait = 700 * time.Millisecond

// TestConfig says whether the string in force equals text, or starts with it.
// The target keeps silent if not; so that this is not taken for a dead target,
// the string is read then.
func (c *Client) TestConfig(ctx context.Context, prefix bool, text []byte) (bool, error) {
	command := ConfigTest
	if prefix {
		command = ConfigPrefix
	}
	for {
		short, cancel := context.WithTimeout(ctx, testWait)
		_, err := c.Config(short, command, text)
		cancel()
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, ErrTimeout) || ctx.Err() != nil {
			return false, err
		}
		now, err := c.Config(ctx, ConfigRead, nil)
		if err != nil {
			return false, err
		}
		if matches := bytes.HasPrefix(now, text); !matches || !prefix && len(now) != len(text) {
			return false, nil
		}
		// It matches: the answers to the test were lost.
	}
}

// Mask edits the list of MACs that may talk to the volume, or reads it if there
// are no directives, and returns it. An empty list admits everybody.
func (c *Client) Mask(ctx context.Context, directives ...MaskDirective) ([]aoe.MAC, error) {
	request, err := MaskRequest(directives)
	if err != nil {
		return nil, err
	}
	op := &Op{Kind: OpMask, Request: request}
	if err := c.Do(ctx, op); err != nil {
		return nil, c.wrap("MAC mask", err)
	}
	macs, err := ParseMaskReply(op.Reply)
	if err != nil {
		return nil, c.wrap("MAC mask", err)
	}
	return macs, nil
}

// Reserve reads the reservation or sets it: to nothing for a release. It returns
// the list in force, also with ErrReserved.
func (c *Client) Reserve(ctx context.Context, command ReserveCommand, macs ...aoe.MAC) ([]aoe.MAC, error) {
	request, err := ReserveRequest(command, macs)
	if err != nil {
		return nil, err
	}
	op := &Op{Kind: OpReserve, Request: request}
	err = c.Do(ctx, op)
	var list []aoe.MAC
	var parseErr error
	if op.Reply != nil {
		list, parseErr = ParseReserveReply(op.Reply)
	}
	if err != nil {
		return list, c.wrap("reservation", err)
	}
	if parseErr != nil {
		return nil, c.wrap("reservation", parseErr)
	}
	return list, nil
}

// Volume is a Client as io.ReaderAt and io.WriterAt, for the life of a context.
type Volume struct {
	ctx    context.Context
	client *Client
	size   int64
}

// Volume identifies the volume and returns it as a reader and writer. Each call
// may take as long as the context lasts.
func (c *Client) Volume(ctx context.Context) (*Volume, error) {
	id, err := c.Identify(ctx)
	if err != nil {
		return nil, err
	}
	return &Volume{ctx: ctx, client: c, size: id.Bytes()}, nil
}

// Size is the size of the volume in bytes.
func (v *Volume) Size() int64 { return v.size }

// ReadAt implements io.ReaderAt for any offset and length.
func (v *Volume) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, v.client.wrap(fmt.Sprintf("read at %d", off), ErrRange)
	}
	if off >= v.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), v.size-off))
	var eof error
	if n < len(p) {
		eof = io.EOF
	}
	first := off / SectorBytes * SectorBytes
	last := (off + int64(n) + SectorBytes - 1) / SectorBytes * SectorBytes
	if first == off && last == off+int64(n) {
		if err := v.client.ReadAt(v.ctx, p[:n], off); err != nil {
			return 0, err
		}
		return n, eof
	}
	whole := make([]byte, last-first)
	if err := v.client.ReadAt(v.ctx, whole, first); err != nil {
		return 0, err
	}
	return copy(p[:n], whole[off-first:]), eof
}

// WriteAt implements io.WriterAt for whole sectors; anything else is refused,
// since nothing makes a read and a write of the rest of a sector one step.
func (v *Volume) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > v.size {
		return 0, v.client.wrap(fmt.Sprintf("write of %d bytes at %d: the volume has %d", len(p), off, v.size), ErrRange)
	}
	if err := v.client.WriteAt(v.ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}
