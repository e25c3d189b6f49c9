package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"clade/aoe/initiator"
)

// transferred is the result of read, write and copy.
type transferred struct {
	Volume         string  `json:"volume"`
	Bytes          int64   `json:"bytes"`
	Seconds        float64 `json:"seconds"`
	BytesPerSecond float64 `json:"bytes_per_second"`
	LongestStallMs float64 `json:"longest_stall_ms"`
	MedianMs       float64 `json:"median_ms"`
	P99Ms          float64 `json:"p99_ms"`
	Resent         uint64  `json:"retransmissions"`
	SHA256         string  `json:"sha256,omitempty"`
	Verified       bool    `json:"verified,omitempty"`
}

// transferOptions are the flags of commands that move data.
type transferOptions struct {
	o         *initiatorOptions
	chunkText string
	depth     int
	chunk     int64
}

func (t *transferOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.chunkText, "chunk", "256KiB", "bytes per operation")
	cmd.Flags().IntVar(&t.depth, "depth", 8, "operations in flight")
}

func (t *transferOptions) parse() error {
	n, err := parseBytes("chunk", t.chunkText)
	if err != nil {
		return err
	}
	if n < initiator.SectorBytes || n > 64<<20 || n%initiator.SectorBytes != 0 || t.depth < 1 || t.depth > 1024 {
		return usageError("--chunk %s, --depth %d: want a multiple of 512 bytes up to 64MiB, and 1 to 1024", t.chunkText, t.depth)
	}
	t.chunk = n
	return nil
}

func parseBytes(flag, s string) (int64, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > 1<<62 {
		return 0, usageError("--%s %q is no size: want bytes, or for example 64KiB, 1MiB, 2GiB", flag, s)
	}
	return int64(n), nil
}

// connected is a volume that answered, for a transfer.
type connected struct {
	*transferOptions
	client *initiator.Client
	volume *initiator.Volume
	at     address
	errOut io.Writer
	began  time.Time
}

// connect asks the volume for its size; one that never answers is reported soon.
func (t *transferOptions) connect(ctx context.Context, cmd *cobra.Command, c *initiator.Client) (*connected, error) {
	first, cancel := t.o.firstContact(cmd)
	defer cancel()
	if _, err := c.Identify(first); err != nil {
		return nil, err
	}
	v, err := c.Volume(ctx)
	if err != nil {
		return nil, err
	}
	shelf, slot := c.Address()
	return &connected{transferOptions: t, client: c, volume: v, at: address{shelf, slot}, errOut: cmd.ErrOrStderr(), began: time.Now()}, nil
}

// result sums a transfer up.
func (v *connected) result(bytes int64, took time.Duration) *transferred {
	st := v.client.Stats()
	return &transferred{Volume: v.at.String(), Bytes: bytes, Seconds: took.Seconds(), BytesPerSecond: float64(bytes) / max(took.Seconds(), 1e-9),
		LongestStallMs: ms(st.LongestStallNs), MedianMs: ms(st.Latency.QuantileNs(0.5)), P99Ms: ms(st.Latency.QuantileNs(0.99)), Resent: st.Resent}
}

func (r *transferred) print(w io.Writer) {
	fmt.Fprintf(w, "%s in %.2f s, %s/s; longest stall %.1f ms (median %.2f, 99%% below %.2f), %d retransmissions\n",
		humanize.IBytes(uint64(r.Bytes)), r.Seconds, humanize.IBytes(uint64(r.BytesPerSecond)), r.LongestStallMs, r.MedianMs, r.P99Ms, r.Resent)
	if r.Verified {
		fmt.Fprintf(w, "verified: SHA-256 %s\n", r.SHA256)
	}
}

// pieces runs work on all chunks of a range, depth at a time, in no order.
func (v *connected) pieces(ctx context.Context, title string, from, bytes int64, work func(ctx context.Context, off int64, p []byte) error) error {
	bar := v.o.newProgress(v.errOut, title, bytes)
	defer bar.finish()
	return eachChunk(ctx, from, bytes, v.chunk, v.depth, func(ctx context.Context, off int64, p []byte) error {
		err := work(ctx, off, p)
		if err == nil {
			bar.add(len(p))
		}
		return err
	})
}

// read and write are one operation each, with the time-out of one.
func (v *connected) read(ctx context.Context, p []byte, off int64) error {
	ctx, cancel := context.WithTimeout(ctx, v.o.timeout)
	defer cancel()
	return v.client.ReadAt(ctx, p, off)
}

func (v *connected) write(ctx context.Context, p []byte, off int64) error {
	ctx, cancel := context.WithTimeout(ctx, v.o.timeout)
	defer cancel()
	return v.client.WriteAt(ctx, p, off)
}

// hash reads a range of the volume in order, depth chunks ahead.
func (v *connected) hash(ctx context.Context, from, bytes int64) (string, error) {
	sum := sha256.New()
	err := v.stream(ctx, "verify "+v.at.String(), from, bytes, sum)
	return hex.EncodeToString(sum.Sum(nil)), err
}

// stream writes a range of the volume to w in order. Only whole sectors are
// read; what is too much at the end is cut off.
func (v *connected) stream(ctx context.Context, title string, from, bytes int64, w io.Writer) error {
	bar := v.o.newProgress(v.errOut, title, bytes)
	defer bar.finish()
	return orderedChunks(ctx, from, bytes, v.chunk, v.depth, func(ctx context.Context, off int64, n int64) ([]byte, error) {
		p := make([]byte, roundUp(n))
		err := v.read(ctx, p, off)
		return p[:n], err
	}, func(p []byte) error {
		n, err := w.Write(p)
		bar.add(n)
		return err
	})
}

func roundUp(n int64) int64 {
	return (n + initiator.SectorBytes - 1) / initiator.SectorBytes * initiator.SectorBytes
}

func (o *initiatorOptions) readCommand() *cobra.Command {
	t := &transferOptions{o: o}
	var offset, length, output string
	cmd := &cobra.Command{
		Use:     "read e<shelf>.<slot>",
		Short:   "Read from a volume into a file or standard output",
		Example: "  clade initiator read -i eth1 e7.1 --offset 1MiB --length 4KiB | xxd",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := parseBytes("offset", offset)
			if err != nil {
				return err
			}
			if err := t.parse(); err != nil {
				return err
			}
			if from%initiator.SectorBytes != 0 {
				return usageError("--offset %s: want a multiple of 512 bytes", offset)
			}
			if o.json && output == "-" {
				return usageError("--json prints the result where the data goes: name a file with --output")
			}
			return o.withClient(args, func(_ *session, c *initiator.Client) error {
				ctx := commandContext(cmd)
				v, err := t.connect(ctx, cmd, c)
				if err != nil {
					return err
				}
				bytes := v.volume.Size() - from
				if length != "" {
					if bytes, err = parseBytes("length", length); err != nil {
						return err
					}
				}
				if bytes < 0 || from > v.volume.Size()-bytes {
					return usageError("%d bytes from %d are beyond the end of %s: it has %d", bytes, from, v.at, v.volume.Size())
				}
				return o.readTo(ctx, cmd, v, from, bytes, output)
			})
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&offset, "offset", "0", "where to begin, in bytes")
	cmd.Flags().StringVar(&length, "length", "", "how much (default: to the end)")
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write, - for standard output")
	return cmd
}

func (o *initiatorOptions) readTo(ctx context.Context, cmd *cobra.Command, v *connected, from, bytes int64, output string) (err error) {
	w := cmd.OutOrStdout()
	if output != "-" {
		f, err := os.Create(output)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w = f
	}
	if err := v.stream(ctx, "read "+v.at.String(), from, bytes, w); err != nil {
		return err
	}
	if output == "-" {
		return nil
	}
	r := v.result(bytes, time.Since(v.began))
	return o.print(cmd, r, r.print)
}

func (o *initiatorOptions) writeCommand() *cobra.Command {
	t := &transferOptions{o: o}
	var offset, input string
	cmd := &cobra.Command{
		Use:   "write e<shelf>.<slot>",
		Short: "Write a file or standard input to a volume",
		Long: `Write a file or standard input to a volume. Data that does not end on a sector
of 512 bytes is filled up with zeros.`,
		Example: "  clade initiator write -i eth1 e7.1 --offset 1MiB --input part.img",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := parseBytes("offset", offset)
			if err != nil {
				return err
			}
			if err := t.parse(); err != nil {
				return err
			}
			if from%initiator.SectorBytes != 0 {
				return usageError("--offset %s: want a multiple of 512 bytes", offset)
			}
			r, size := cmd.InOrStdin(), int64(-1)
			if input != "-" {
				f, err := os.Open(input)
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				if size, err = fileSize(f); err != nil {
					return err
				}
				r = f
			}
			return o.withClient(args, func(_ *session, c *initiator.Client) error {
				ctx := commandContext(cmd)
				v, err := t.connect(ctx, cmd, c)
				if err != nil {
					return err
				}
				n, err := v.writeFrom(ctx, r, size, from)
				if err != nil {
					return err
				}
				res := v.result(n, time.Since(v.began))
				return o.print(cmd, res, res.print)
			})
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&offset, "offset", "0", "where to begin, in bytes")
	cmd.Flags().StringVar(&input, "input", "-", "file to read, - for standard input")
	return cmd
}

// writeFrom writes what a reader has, in order of reading, depth chunks at a
// time. size is -1 if it is not known.
func (v *connected) writeFrom(ctx context.Context, r io.Reader, size, from int64) (int64, error) {
	room := v.volume.Size() - from
	if room < 0 || roundUp(size) > room {
		return 0, usageError("%d bytes from %d are beyond the end of %s: it has %d", max(size, 0), from, v.at, v.volume.Size())
	}
	bar := v.o.newProgress(v.errOut, "write "+v.at.String(), size)
	defer bar.finish()
	var done int64
	g := newWindow(ctx, v.depth)
	for {
		p := make([]byte, v.chunk)
		n, err := io.ReadFull(r, p)
		if n > 0 {
			if int64(n) > room-done {
				return done, errors.Join(g.wait(), fmt.Errorf("the input is larger than the rest of %s, %d bytes; what fits was written", v.at, room))
			}
			off := from + done
			done += int64(n)
			if !g.run(func(ctx context.Context) error {
				err := v.write(ctx, p[:roundUp(int64(n))], off)
				bar.add(n)
				return err
			}) {
				break
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return done, errors.Join(g.wait(), err)
		}
	}
	return done, g.wait()
}

// fileSize is the size of a file or a block device, -1 for a pipe.
func fileSize(f *os.File) (int64, error) {
	n, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return -1, nil // a pipe
	}
	_, err = f.Seek(0, io.SeekStart)
	return n, err
}
