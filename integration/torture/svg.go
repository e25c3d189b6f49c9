package torture

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// The picture: one chart a run, throughput as an area, faults as numbered bands with their list below. Colours are readable on
// white and on black; the background is left to whoever shows it.
const (
	svgWidth    = 1000.0
	chartLeft   = 320.0
	chartRight  = 985.0
	chartHeight = 170.0
	laneHeight  = 13.0
	ink         = "#808890" // text and axes
	areaColour  = "#3b8ec2"
	stallColour = "#d0a020"
	badColour   = "#d03030"
)

var kindColours = []string{"#c2573b", "#7a5cc2", "#3ba36b", "#c23b8e", "#8f8f2e", "#2e8f8f", "#a0683b", "#5b7fd0", "#b04a4a"}

// colourOf is one colour for each group of kinds.
func colourOf(k Kind) string {
	return kindColours[slices.Index(Kinds(), k)/2%len(kindColours)]
}

// WriteSVG draws runs: operations a second over time, and which fault was when.
func WriteSVG(w io.Writer, runs []*Result) error {
	var b strings.Builder
	y := 10.0
	for _, r := range runs {
		y = r.chart(&b, y) + 25
	}
	_, err := fmt.Fprintf(w, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" font-size=\"11\">\n%s</svg>\n", svgWidth, y, b.String())
	return err
}

func text(b *strings.Builder, x, y float64, anchor, colour, s string) {
	fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">%s</text>\n", x, y, anchor, colour, html.EscapeString(s))
}

func line(b *strings.Builder, x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"0.7\"/>\n", x1, y1, x2, y2, colour)
}

// niceStep returns a round number of which at most n go into x.
func niceStep(x float64, n int) float64 {
	step := math.Pow(10, math.Floor(math.Log10(max(x, 1e-9)/float64(n))))
	for _, f := range []float64{1, 2, 5, 10} {
		if x/(step*f) <= float64(n) {
			return step * f
		}
	}
	return step * 10
}

// chart draws one run from y on and returns where it ends.
func (r *Result) chart(b *strings.Builder, y float64) float64 {
	span := float64(max(r.DurationMs, 1))
	at := func(ms float64) float64 { return chartLeft + (chartRight-chartLeft)*min(ms/span, 1) }
	text(b, chartLeft, y+12, "start", ink, fmt.Sprintf("%s, seed %d: %d operations, %d faults, %d violations; longest stall %d ms", r.Shape, r.Seed,
		r.Counts.Operations(), len(r.Events), len(r.Violations), r.LongestMs))
	top, bottom := y+24, y+24+chartHeight
	peak := 1.0
	for _, x := range r.Bins {
		peak = max(peak, float64(x.Operations)*1000/float64(max(r.BinMs, 1)))
	}
	up := func(rate float64) float64 { return bottom - chartHeight*rate/peak }
	for rate, step := 0.0, niceStep(peak, 4); rate <= peak; rate += step {
		line(b, chartLeft, up(rate), chartRight, up(rate), "#80808040")
		text(b, chartLeft-6, up(rate)+4, "end", ink, fmt.Sprintf("%.0f/s", rate))
	}
	r.bands(b, at, top, bottom)
	fmt.Fprintf(b, "<path fill=\"%s\" fill-opacity=\"0.45\" stroke=\"%s\" stroke-width=\"0.8\" d=\"M%.1f %.1f", areaColour, areaColour, chartLeft, bottom)
	for i, x := range r.Bins {
		fmt.Fprintf(b, " L%.1f %.1f", at((float64(i)+0.5)*float64(r.BinMs)), up(float64(x.Operations)*1000/float64(max(r.BinMs, 1))))
	}
	fmt.Fprintf(b, " L%.1f %.1f Z\"/>\n", at(float64(len(r.Bins))*float64(r.BinMs)), bottom)
	for _, v := range r.Violations {
		line(b, at(float64(v.AtMs)), top, at(float64(v.AtMs)), bottom, badColour)
		text(b, at(float64(v.AtMs)), top-2, "middle", badColour, "violation")
	}
	line(b, chartLeft, bottom, chartRight, bottom, ink)
	for s, step := 0.0, niceStep(span/1000, 10); s*1000 <= span; s += step {
		text(b, at(s*1000), bottom+14, "middle", ink, (time.Duration(s*1000) * time.Millisecond).String())
	}
	return r.legend(b, at, bottom+24)
}

// bands marks each fault from its beginning to its end, thin ones with a line, and the stall that it caused.
func (r *Result) bands(b *strings.Builder, at func(float64) float64, top, bottom float64) {
	for i := range r.Events {
		e := &r.Events[i]
		x := at(float64(e.BeginMs))
		fmt.Fprintf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" fill-opacity=\"0.28\"><title>%s</title></rect>\n", x, top,
			max(at(float64(e.EndMs))-x, 0.8), bottom-top, colourOf(e.Kind), html.EscapeString(fmt.Sprintf("%s: %s, stall %d ms", e.Node, e.Kind, e.StallMs)))
		if e.StallMs > 0 {
			fmt.Fprintf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"3\" fill=\"%s\"/>\n", x, bottom-3, max(at(float64(e.BeginMs)+float64(e.StallMs))-x, 0.8), stallColour)
		}
	}
}

// legend draws a lane for each kind that there was, with its times as ticks.
func (r *Result) legend(b *strings.Builder, at func(float64) float64, y float64) float64 {
	for _, kind := range Kinds() {
		times, longest := 0, 0
		for i := range r.Events {
			if e := &r.Events[i]; e.Kind == kind {
				times++
				longest = max(longest, e.StallMs)
				x := at(float64(e.BeginMs))
				fmt.Fprintf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y+2, max(at(float64(e.EndMs))-x, 1.5), laneHeight-4, colourOf(kind))
			}
		}
		if times == 0 {
			continue
		}
		text(b, chartLeft-6, y+10, "end", ink, fmt.Sprintf("%s: %d, longest %d ms", kind, times, longest))
		y += laneHeight
	}
	fmt.Fprintf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"3\" fill=\"%s\"/>\n", chartLeft, y+8, stallColour)
	text(b, chartLeft+20, y+12, "start", ink, "longest stall, from the beginning of its fault")
	return y + laneHeight
}
