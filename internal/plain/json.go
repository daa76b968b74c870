// Package plain writes the JSON that a gateway writes for every buyer without
// reflection, byte for byte as encoding/json does.
package plain

import "encoding/json"

// AppendText appends s as encoding/json writes it. Nearly every text is plain,
// and is copied; the others are left to encoding/json.
func AppendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, _ := json.Marshal(s) // a string always encodes
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
