package mysql_test

import (
	"testing"

	"github.com/leadingpeers/seckill/internal/mysql"
)

func TestInAndValues(t *testing.T) {
	tests := []struct{ got, want, why string }{
		{mysql.In("SELECT a FROM t WHERE b = ? AND a IN (?) LIMIT ?", 1), "SELECT a FROM t WHERE b = ? AND a IN (?) LIMIT ?", "one stays as it is"},
		{mysql.In("SELECT a FROM t WHERE b = ? AND a IN (?) LIMIT ?", 3), "SELECT a FROM t WHERE b = ? AND a IN (?,?,?) LIMIT ?", "only the list grows"},
		{mysql.Values("INSERT INTO t (a, b) VALUES (?, NOW(3))", 1), "INSERT INTO t (a, b) VALUES (?, NOW(3))", "one stays as it is"},
		{mysql.Values("INSERT INTO t (a, b) VALUES (?, NOW(3))", 2), "INSERT INTO t (a, b) VALUES (?, NOW(3)),(?, NOW(3))", "brackets within the row"},
		{mysql.Values("INSERT INTO t (a) VALUES (?) ON DUPLICATE KEY UPDATE a = VALUES(a)", 2), "INSERT INTO t (a) VALUES (?),(?) ON DUPLICATE KEY UPDATE a = VALUES(a)", "what follows the row stays"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.why, tt.got, tt.want)
		}
	}
}

func TestID(t *testing.T) {
	tests := []struct {
		id   mysql.ID
		want bool
		why  string
	}{
		{"aaaaaaaaaaaaaaaaaaaaaaaaaa", true, "all bits clear"},
		{"77777777777777777777777774", true, "all bits set"},
		{"aaaaaaaaaaaaaaaaaaaaaaaaab", false, "a set bit beyond the 128: would share its bytes with the first"},
		{"AAAAAAAAAAAAAAAAAAAAAAAAAA", false, "capital letters"},
		{"aaaaaaaaaaaaaaaaaaaaaaaaa", false, "25 characters"},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaa", false, "27 characters"},
		{"aaaaaaaaaaaa\naaaaaaaaaaaaaa", false, "a line feed, which base32 decoders skip"},
		{"", false, "empty"},
	}
	for _, tt := range tests {
		if got := tt.id.Valid(); got != tt.want {
			t.Errorf("%q valid: got %v, want %v: %s", tt.id, got, tt.want, tt.why)
		}
		raw, err := tt.id.Value()
		if (err == nil) != tt.want {
			t.Errorf("%q value: %v: %s", tt.id, err, tt.why)
		}
		if err != nil {
			continue
		}
		var back mysql.ID
		if err := back.Scan(raw); err != nil || back != tt.id {
			t.Errorf("%q came back as %q, %v", tt.id, back, err)
		}
	}
	var id mysql.ID
	if err := id.Scan([]byte("short")); err == nil {
		t.Error("scanned 5 bytes")
	}
	if err := id.Scan("a text of sixteen"); err == nil {
		t.Error("scanned a text")
	}
}
