// Package compose checks compose.yaml where there is no Docker to run it.
package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/spf13/pflag"

	"github.com/leadingpeers/seckill/internal/app"
)

const root = "../.."

// services reads compose.yaml with its anchors and merge keys resolved.
func services(t *testing.T) (file map[string]any, services map[string]map[string]any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if file, err = yaml.Parser().Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	services = map[string]map[string]any{}
	all, _ := file["services"].(map[string]any)
	for name, body := range all {
		services[name], _ = body.(map[string]any)
	}
	return file, services
}

func TestDependenciesAndVolumesExist(t *testing.T) {
	file, all := services(t)
	volumes, _ := file["volumes"].(map[string]any)
	for name, service := range all {
		needs, _ := service["depends_on"].(map[string]any)
		for other, condition := range needs {
			if all[other] == nil {
				t.Errorf("%s waits for %s, which is no service", name, other)
			}
			if strings.Contains(fmt.Sprint(condition), "service_healthy") && all[other]["healthcheck"] == nil {
				t.Errorf("%s waits until %s is healthy, which has no health check", name, other)
			}
		}
		mounts, _ := service["volumes"].([]any)
		for _, mount := range mounts {
			volume, _, _ := strings.Cut(fmt.Sprint(mount), ":")
			if strings.HasPrefix(volume, "./") {
				if _, err := os.Stat(filepath.Join(root, volume)); err != nil {
					t.Errorf("%s mounts what is not there: %v", name, err)
				}
				continue
			}
			if _, ok := volumes[volume]; !ok {
				t.Errorf("%s mounts %s, which is no volume", name, volume)
			}
		}
	}
}

// The processes must accept every setting they are given, and exist.
func TestSettingsAreKnown(t *testing.T) {
	_, all := services(t)
	for _, role := range []app.Role{app.RoleGateway, app.RoleStockWorker, app.RoleSettleWorker} {
		service := all[string(role)]
		if service == nil {
			t.Errorf("no service runs %s", role)
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "cmd", string(role), "main.go")); err != nil || fmt.Sprint(service["command"]) != fmt.Sprintf("[%s]", role) {
			t.Errorf("%s: the command is %v, want [%s] and its main.go: %v", role, service["command"], role, err)
		}
		var environ []string
		settings, _ := service["environment"].(map[string]any)
		for name, value := range settings {
			text := fmt.Sprint(value)
			if name == "SECKILL_KEYS" { // compose puts the value in
				text = "service:checkout:0123456789abcdef"
			}
			environ = append(environ, name+"="+text)
		}
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		app.Flags(flags, role)
		cfg, err := app.Load(flags, environ)
		if err != nil {
			t.Errorf("%s: %v", role, err)
		}
		if cfg.Redis != "redis:6379" || cfg.Kafka != "kafka:9092" || !strings.HasPrefix(cfg.MySQL, "root@tcp(mysql:3306)") {
			t.Errorf("%s: reaches %s, %s and %s, want the services redis, kafka and mysql", role, cfg.Redis, cfg.Kafka, cfg.MySQL)
		}
	}
}

// Prometheus finds the processes by the services' names, at the port where
// they listen, under the jobs that the rules know.
func TestTheObservabilityProfile(t *testing.T) {
	_, all := services(t)
	for _, name := range []string{"prometheus", "alertmanager", "grafana"} {
		if fmt.Sprint(all[name]["profiles"]) != "[observability]" {
			t.Errorf("%s: profiles %v, want only observability", name, all[name]["profiles"])
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []app.Role{app.RoleGateway, app.RoleStockWorker, app.RoleSettleWorker} {
		settings, _ := all[string(role)]["environment"].(map[string]any)
		_, port, _ := strings.Cut(fmt.Sprint(settings["SECKILL_ADMIN_LISTEN"]), ":")
		want := fmt.Sprintf("job_name: seckill-%s\n    dns_sd_configs: [{ names: [%s], type: A, port: %s,", role, role, port)
		if !strings.Contains(string(text), want) {
			t.Errorf("prometheus.yml lacks %q", want)
		}
	}
	if !strings.Contains(string(text), "alertmanager:9093") {
		t.Error("prometheus.yml sends its alerts to none of the services")
	}
}

// What is acknowledged must survive a crash in both places alike.
func TestServersAreAsDurableAsTheLocalOnes(t *testing.T) {
	_, all := services(t)
	script, err := os.ReadFile(filepath.Join(root, "deploy/local/servers"))
	if err != nil {
		t.Fatal(err)
	}
	local := strings.Join(strings.Fields(strings.ReplaceAll(string(script), "\\\n", " ")), " ")
	for _, c := range []struct{ service, setting, why string }{
		{"redis", "--appendonly yes", "a restart keeps the hot count"},
		{"redis", "--appendfsync everysec", "the loss that the protocol heals is a second"},
		{"redis", "--maxmemory-policy noeviction", "an evicted product would be sold again"},
		{"mysql", "--innodb-flush-log-at-trx-commit=1", "a committed deduction survives a power cut"},
		{"mysql", "--sync-binlog=1", "and so does its copy on a replica"},
		{"mysql", "--binlog-format=ROW", "READ COMMITTED needs it"},
		{"mysql", "--default-time-zone=+00:00", "times are UTC"},
	} {
		words, _ := all[c.service]["command"].([]any)
		if !strings.Contains(strings.Trim(fmt.Sprint(words), "[]"), c.setting) {
			t.Errorf("compose.yaml: %s lacks %s: %s", c.service, c.setting, c.why)
		}
		if !strings.Contains(local, c.setting) {
			t.Errorf("deploy/local/servers lacks %s: %s", c.setting, c.why)
		}
	}
	pom, err := os.ReadFile(filepath.Join(root, "deploy/local/kafka/pom.xml"))
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(fmt.Sprint(all["kafka"]["image"]), ":")
	if !strings.Contains(string(pom), "<kafka.version>"+version+"<") {
		t.Errorf("compose.yaml runs Kafka %s, deploy/local another one", version)
	}
	settings, _ := all["kafka"]["environment"].(map[string]any)
	if settings["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] != "false" {
		t.Error("compose.yaml: Kafka makes topics by itself; a misspelt name must be an error")
	}
}
