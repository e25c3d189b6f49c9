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

	"github.com/spf13/cobra"

	"clade/aoe/initiator"
)

func (o *initiatorOptions) copyCommand() *cobra.Command {
	t := &transferOptions{o: o}
	var verify bool
	cmd := &cobra.Command{
		Use:   "copy SOURCE DESTINATION",
		Short: "Copy a file to a volume, or a volume to a file",
		Long: `Copy a file to a volume, or a volume to a file. One of the two is a volume's
address, as in e7.1; a file of such a name is written ./e7.1.

With --verify everything is read back and its SHA-256 compared.`,
		Example: "  clade initiator copy -i eth1 disk.img e7.1 --verify\n  clade initiator copy -i eth1 e7.1 backup.img",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.parse(); err != nil {
				return err
			}
			if o.shelf >= 0 || o.slot >= 0 {
				return usageError("copy takes the volume as an argument, not as --shelf and --slot")
			}
			_, sourceErr := parseAddress(args[0])
			_, targetErr := parseAddress(args[1])
			if (sourceErr == nil) == (targetErr == nil) {
				return usageError("copy %s %s: exactly one of the two has to be a volume's address, as in e7.1", args[0], args[1])
			}
			if targetErr == nil {
				return o.copyToVolume(cmd, t, args[0], args[1], verify)
			}
			return o.copyToFile(cmd, t, args[0], args[1], verify)
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&verify, "verify", false, "read everything back and compare the SHA-256")
	return cmd
}

func (o *initiatorOptions) copyToVolume(cmd *cobra.Command, t *transferOptions, file, volume string, verify bool) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	size, err := fileSize(f)
	if err != nil || size < 0 {
		return usageError("%s has no size: to write from a pipe use clade initiator write", file)
	}
	return o.withClient([]string{volume}, func(_ *session, c *initiator.Client) error {
		ctx := commandContext(cmd)
		v, err := t.connect(ctx, cmd, c)
		if err != nil {
			return err
		}
		if roundUp(size) > v.volume.Size() {
			return usageError("%s has %d bytes, %s only %d", file, size, v.at, v.volume.Size())
		}
		started := time.Now()
		if err := v.pieces(ctx, "copy to "+v.at.String(), 0, roundUp(size), func(ctx context.Context, off int64, p []byte) error {
			n, err := f.ReadAt(p, off)
			if err != nil && !(errors.Is(err, io.EOF) && off+int64(n) == size) {
				return fmt.Errorf("%s at %d: %w", file, off, err)
			}
			clear(p[n:]) // the rest of the last sector
			return v.write(ctx, p, off)
		}); err != nil {
			return err
		}
		r := v.result(size, time.Since(started))
		if verify {
			if err := v.verify(ctx, f, file, size, r); err != nil {
				return err
			}
		}
		return o.print(cmd, r, r.print)
	})
}

func (o *initiatorOptions) copyToFile(cmd *cobra.Command, t *transferOptions, volume, file string, verify bool) error {
	return o.withClient([]string{volume}, func(_ *session, c *initiator.Client) (err error) {
		ctx := commandContext(cmd)
		v, err := t.connect(ctx, cmd, c)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		size := v.volume.Size()
		if st, serr := f.Stat(); serr == nil && st.Mode().IsRegular() {
			if err := f.Truncate(size); err != nil {
				return err
			}
		}
		started := time.Now()
		if err := v.pieces(ctx, "copy from "+v.at.String(), 0, size, func(ctx context.Context, off int64, p []byte) error {
			if err := v.read(ctx, p, off); err != nil {
				return err
			}
			_, err := f.WriteAt(p, off)
			return err
		}); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		r := v.result(size, time.Since(started))
		if verify {
			if err := v.verify(ctx, f, file, size, r); err != nil {
				return err
			}
		}
		return o.print(cmd, r, r.print)
	})
}

// verify compares a file with the beginning of the volume by their SHA-256.
func (v *connected) verify(ctx context.Context, f io.ReaderAt, name string, size int64, r *transferred) error {
	sum := sha256.New()
	if n, err := io.Copy(sum, io.NewSectionReader(f, 0, size)); err != nil || n != size {
		return errors.Join(fmt.Errorf("verify: %s: read %d of %d bytes", name, n, size), err)
	}
	r.SHA256 = hex.EncodeToString(sum.Sum(nil))
	got, err := v.hash(ctx, 0, size)
	if err != nil {
		return err
	}
	if got != r.SHA256 {
		return fmt.Errorf("verify: %s and %s differ: SHA-256 %s and %s", name, v.at, r.SHA256, got)
	}
	st := v.client.Stats()
	r.Verified, r.LongestStallMs, r.Resent = true, ms(st.LongestStallNs), st.Resent
	return nil
}
