package main

import (
	"fmt"
	"html"
	"strings"
)

// The picture: one small chart a column, a bar for each row, longest bar the best of all. Colours are readable on white and on black;
// the background is left to whoever shows it.
const (
	chartWidth  = 480.0
	labelWidth  = 150.0
	valueWidth  = 70.0
	barHeight   = 13.0
	barGap      = 3.0
	titleHeight = 24.0
	chartGap    = 18.0
	ink         = "#808890"
)

var rowColours = map[string]string{rowNull: "#8f8f8f", rowVblade: "#c2573b", rowRAM: "#7a5cc2"}

const cladeColour = "#3b8ec2"

// picture draws all columns of which anything was measured, two beside each other.
func picture(t *table) []byte {
	var b strings.Builder
	bottoms := [2]float64{10, 10}
	n := 0
	for i := range loads {
		chart, height := chartOf(t, &loads[i])
		if chart == "" {
			continue
		}
		side := n % 2
		fmt.Fprintf(&b, "<g transform=\"translate(%.0f %.0f)\">\n%s</g>\n", 10+float64(side)*(chartWidth+chartGap), bottoms[side], chart)
		bottoms[side] += height + chartGap
		n++
	}
	width := 2*chartWidth + chartGap + 20
	return fmt.Appendf(nil, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" font-size=\"11\">\n%s</svg>\n",
		width, max(bottoms[0], bottoms[1]), b.String())
}

// chartOf draws one column and returns its height; nothing if nothing was measured.
func chartOf(t *table, l *load) (string, float64) {
	longest := 0.0
	for _, row := range allRows {
		if v, ok := t.rate(row, l.name); ok {
			longest = max(longest, v)
		}
	}
	if longest == 0 {
		return "", 0
	}
	var b strings.Builder
	unit := "IOPS"
	if l.large {
		unit = "MB/s"
	}
	fmt.Fprintf(&b, "<text x=\"0\" y=\"12\" fill=\"%s\" font-weight=\"bold\">%s, %s</text>\n", ink, html.EscapeString(l.title), unit)
	y := titleHeight
	for _, row := range allRows {
		v, ok := t.rate(row, l.name)
		if !ok {
			continue
		}
		colour := rowColours[row]
		if colour == "" {
			colour = cladeColour
		}
		length := max(1, v/longest*(chartWidth-labelWidth-valueWidth))
		fmt.Fprintf(&b, "<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\" fill=\"%s\">%s</text>\n", labelWidth-6, y+barHeight-3, ink, html.EscapeString(row))
		fmt.Fprintf(&b, "<rect x=\"%.0f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", labelWidth, y, length, barHeight, colour)
		fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\" fill=\"%s\">%s</text>\n", labelWidth+length+5, y+barHeight-3, ink, number(v))
		y += barHeight + barGap
	}
	return b.String(), y
}
