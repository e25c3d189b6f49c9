package runtime

import (
	"fmt"
	"io"
	"log/slog"
)

// NewLogger returns the logger that a configuration asks for.
func NewLogger(w io.Writer, c LogConfig) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fmt.Errorf("log.level %q: choose debug, info, warn or error", c.Level)
	}
	opt := &slog.HandlerOptions{Level: level}
	switch c.Format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, opt)), nil
	case "text", "":
		return slog.New(slog.NewTextHandler(w, opt)), nil
	}
	return nil, fmt.Errorf("log.format %q: choose text or json", c.Format)
}
