package web

import "strconv"

// decodePlain reads the body that nearly everybody sends: a flat object whose
// values are whole numbers from 0 and text of visible ASCII without escapes,
// for fields that are *int64 and *string. It reports whether it was one; every
// other body, right or wrong, is left to decodeObject, which would read this
// one alike and takes four times as long.
func decodePlain(body []byte, fields []Field) bool {
	var texts [maxPlain][]byte // of the fields, by their place
	var numbers [maxPlain]int64
	var seen [maxPlain]bool
	if len(fields) > maxPlain {
		return false
	}
	p := plain{body: body}
	if !p.next('{') {
		return false
	}
	for more := !p.next('}'); more; more = !p.next('}') {
		if p.count > 0 && !p.next(',') {
			return false
		}
		p.count++
		i := find(p.text(), fields)
		if i < 0 || seen[i] || !p.next(':') {
			return false
		}
		seen[i] = true
		switch fields[i].Into.(type) {
		case *string:
			if texts[i] = p.text(); texts[i] == nil {
				return false
			}
		case *int64:
			var ok bool
			if numbers[i], ok = p.number(); !ok {
				return false
			}
		default:
			return false
		}
	}
	p.space()
	if p.at != len(body) {
		return false
	}
	for i, f := range fields {
		if !seen[i] && !f.Optional {
			return false
		}
	}
	for i, f := range fields { // only now that nothing can go wrong
		switch into := f.Into.(type) {
		case *string:
			if seen[i] {
				*into = string(texts[i])
			}
		case *int64:
			if seen[i] {
				*into = numbers[i]
			}
		}
	}
	return true
}

// maxPlain is how many fields a plain body may have.
const maxPlain = 8

// find is the place of the field called name, or -1. A name that is nil is none.
func find(name []byte, fields []Field) int {
	for i := range fields {
		if name != nil && string(name) == fields[i].Name {
			return i
		}
	}
	return -1
}

// plain reads a body from left to right.
type plain struct {
	body  []byte
	at    int
	count int // members so far
}

func (p *plain) space() {
	for p.at < len(p.body) && (p.body[p.at] == ' ' || p.body[p.at] == '\n' || p.body[p.at] == '\t' || p.body[p.at] == '\r') {
		p.at++
	}
}

// next skips white space and then c, if that is what follows.
func (p *plain) next(c byte) bool {
	p.space()
	if p.at < len(p.body) && p.body[p.at] == c {
		p.at++
		return true
	}
	return false
}

// text reads a string, and returns nil when it is none or not a plain one.
func (p *plain) text() []byte {
	if !p.next('"') {
		return nil
	}
	start := p.at
	for ; p.at < len(p.body); p.at++ {
		switch c := p.body[p.at]; {
		case c == '"':
			p.at++
			return p.body[start : p.at-1 : p.at-1]
		case c < ' ' || c > '~' || c == '\\':
			return nil
		}
	}
	return nil
}

// number reads a whole number from 0 that surely fits.
func (p *plain) number() (int64, bool) {
	p.space()
	start := p.at
	for p.at < len(p.body) && p.body[p.at] >= '0' && p.body[p.at] <= '9' {
		p.at++
	}
	digits := p.body[start:p.at]
	if len(digits) == 0 || len(digits) > 18 || (digits[0] == '0' && len(digits) > 1) {
		return 0, false
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	return n, err == nil
}
