package main

import (
	"fmt"
	"io"
	"strings"
)

// report shows every median with its rounds and its ratio to millrace's, and each target.
func (r *results) report(w io.Writer) {
	met, missed := 0, 0
	for _, c := range cases() {
		own, measured := r.find(c.name, millrace)
		if !r.any(c.name) {
			continue
		}
		fmt.Fprintf(w, "\n%-28s %s, %s\n", c.name, c.what, c.unit)
		for _, system := range systems() {
			if v, ok := r.find(c.name, system); ok {
				fmt.Fprintf(w, "  %-12s %12s   %-10s %s\n", system, number(v.Value), ratio(own, v, measured), rounds(v))
			}
		}
		for _, t := range c.targets {
			text, ok, known := r.judge(c, t)
			switch {
			case !known:
				text += " not measured"
			case ok:
				met++
				text += " met"
			default:
				missed++
				text += " MISSED"
			}
			fmt.Fprintln(w, "  "+text)
		}
	}
	fmt.Fprintf(w, "\n%d targets met, %d missed\n", met, missed)
	for _, f := range r.failures {
		fmt.Fprintln(w, "not measured:", f)
	}
}

// any reports whether any system has a value for the case.
func (r *results) any(name string) bool {
	for _, system := range systems() {
		if _, ok := r.find(name, system); ok {
			return true
		}
	}
	return false
}

// judge holds the medians against the target. known is false where one of them is missing.
func (r *results) judge(c benchCase, t target) (text string, ok, known bool) {
	sign := "<="
	if t.atLeast {
		sign = ">="
	}
	text = fmt.Sprintf("target     %s %g %s:", sign, t.bound, c.unit)
	own, known := r.find(c.name, millrace)
	if t.of == "" {
		return text, known && t.met(own.Value, 0), known
	}
	text = fmt.Sprintf("target     %s %g x %s:", sign, t.bound, t.of)
	other, knownOther := r.find(c.name, t.of)
	known = known && knownOther
	if known && other.Value > 0 {
		text += fmt.Sprintf(" %.2f x,", own.Value/other.Value)
	}
	return text, known && t.met(own.Value, other.Value), known
}

// ratio shows millrace's value as a multiple of another system's.
func ratio(own, other result, measured bool) string {
	if !measured || own.System == other.System || other.Value == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f x", own.Value/other.Value)
}

// rounds shows the values behind a median.
func rounds(v result) string {
	var texts []string
	for _, value := range v.Rounds {
		texts = append(texts, number(value))
	}
	return "(" + strings.Join(texts, " ") + ")"
}

// number shows a value with the digits that mean something.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}
