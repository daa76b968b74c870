package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// FuzzLoad reads what might be a configuration file and variables. Whatever is
// wrong with them, the message never shows a secret.
func FuzzLoad(f *testing.F) {
	const hidden = "very-secret-0123456789"
	f.Add("redis: localhost:6379\nreap-after: 5s\nkeys: [\"service:shop:"+hidden+"\"]\n", "SECKILL_PREFIX=shop", "service:shop:"+hidden)
	path := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, file, variable, keys string) {
		if strings.ContainsAny(variable+keys, "\x00") || strings.Contains(variable, "_FILE=") {
			return // no environment has the first, and the second would read any file
		}
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		Flags(fs, RoleGateway)
		cfg, err := Load(fs, []string{"SECKILL_CONFIG=" + path, "SECKILL_KEYS=" + keys, variable})
		if err != nil {
			if strings.Contains(err.Error(), hidden) {
				t.Fatalf("the message shows the secret: %v", err)
			}
			return
		}
		if cfg.validate() != nil || cfg.Prefix == "" {
			t.Fatalf("taken: %+v", cfg)
		}
		if _, err := cfg.apiKeys(); err != nil {
			t.Fatalf("taken, and the keys are no good: %v", err)
		}
	})
}
