package doctor

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leadingpeers/seckill/internal/ops/topics"
	"github.com/leadingpeers/seckill/pkg/catalog"
)

// checks are all of them.
func (f facts) checks() []Check {
	var out []Check
	for _, some := range [][]Check{
		f.checkRedis(), f.checkMySQL(), f.checkSchema(), f.checkClocks(), f.checkBrokers(), f.checkTopics(), f.checkGroups(), f.checkSales(), f.checkSecrets(),
	} {
		out = append(out, some...)
	}
	return out
}

// check makes one that is ok when good, with what is fine; otherwise the method or completes it.
func check(name string, good bool, fine string) Check {
	if good {
		return Check{Name: name, Status: OK, Why: fine}
	}
	return Check{Name: name}
}

// or is c when c is ok, and otherwise what was found, and what to do.
func (c Check) or(bad Status, why, fix string) Check {
	if c.Status == OK {
		return c
	}
	return Check{Name: c.Name, Status: bad, Why: why, Fix: fix}
}

func unreadable(name string, err error, fix string) []Check {
	return []Check{{Name: name, Status: Fail, Why: err.Error(), Fix: fix}}
}

func (f facts) checkRedis() (out []Check) {
	if f.redisErr != nil {
		return unreadable("redis", f.redisErr, "start Redis, or correct the setting redis")
	}
	for _, s := range f.redis {
		v, at := s.Values, " at "+s.Addr
		out = append(out, check("redis version", atLeast(v["redis_version"], 6, 2), "Redis "+v["redis_version"]+at).or(Fail,
			"Redis "+v["redis_version"]+at+": its scripts and commands need 6.2", "upgrade Redis"))
		out = append(out, check("redis appendonly", v["appendonly"] == "yes", "the append-only file is on"+at).or(Fail,
			"the append-only file is off"+at+": a restart forgets every hold, and buyers who had one are refused", "CONFIG SET appendonly yes, and in redis.conf"))
		fsync := check("redis appendfsync", v["appendfsync"] == "always", "every write is on disk before its answer"+at).or(Warn,
			"appendfsync is "+v["appendfsync"]+at+": a crash loses up to a second of holds; the ledger still sells nothing twice, but some buyers are refused later", "CONFIG SET appendfsync always, if the disk keeps up")
		switch v["appendfsync"] {
		case "no":
			fsync.Status, fsync.Why = Fail, "appendfsync is no"+at+": a crash loses whatever the kernel has not written, half a minute and more"
		case "":
			fsync.Why = "appendfsync cannot be read" + at + " (CONFIG is forbidden): see what the service promises"
		}
		out = append(out, fsync)
		out = append(out, check("redis maxmemory-policy", v["maxmemory-policy"] == "noeviction", "nothing is evicted"+at).or(Fail,
			"maxmemory-policy is "+v["maxmemory-policy"]+at+": under pressure whole products vanish in the middle of a sale", "CONFIG SET maxmemory-policy noeviction, and in redis.conf"))
	}
	return out
}

// atLeast compares the first two numbers of a version.
func atLeast(version string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(version, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || (a == major && b >= minor)
}

func (f facts) checkMySQL() []Check {
	if f.mysqlErr != nil {
		return unreadable("mysql", f.mysqlErr, "start MySQL, or correct the setting mysql")
	}
	v := f.mysql
	maria := strings.Contains(v["version"], "MariaDB")
	recent := atLeast(v["version"], 8, 0)
	if maria {
		recent = atLeast(v["version"], 10, 6)
	}
	isolation := v["transaction_isolation"] + v["tx_isolation"]
	if v["transaction_isolation"] != "" {
		isolation = v["transaction_isolation"]
	}
	return []Check{
		check("mysql version", recent, v["version"]).or(Fail, v["version"]+": SKIP LOCKED needs MySQL 8.0 or MariaDB 10.6", "upgrade"),
		check("mysql flush", v["innodb_flush_log_at_trx_commit"] == "1", "every commit is on disk").or(Fail,
			"innodb_flush_log_at_trx_commit is "+v["innodb_flush_log_at_trx_commit"]+": a crash loses up to a second of commits, orders among them", "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in my.cnf"),
		check("mysql sync_binlog", v["sync_binlog"] == "1" || v["log_bin"] != "ON", "the binary log is on disk with every commit, or there is none").or(Fail,
			"sync_binlog is "+v["sync_binlog"]+" (MariaDB's default is 0): after a crash replicas and restored backups lack commits", "SET GLOBAL sync_binlog = 1, and in my.cnf"),
		check("mysql doublewrite", !strings.EqualFold(v["innodb_doublewrite"], "OFF") && v["innodb_doublewrite"] != "0", "torn pages are repaired").or(Warn,
			"innodb_doublewrite is off: a power failure may tear a page", "turn it on, unless the file system writes pages whole"),
		check("mysql isolation", isolation == "READ-COMMITTED", "our sessions are READ COMMITTED").or(Fail,
			"our sessions are "+isolation+": gap locks would make deadlocks of concurrent orders", "look for a proxy that changes session variables"),
		check("mysql writable", v["read_only"] == "OFF" || v["read_only"] == "0" || v["read_only"] == "", "the server takes writes").or(Fail,
			"the server is read-only: this is a replica", "let the setting mysql name the primary"),
	}
}

func (f facts) checkSchema() []Check {
	if f.schemaErr != nil {
		return unreadable("schema", f.schemaErr, "seckill migrate")
	}
	c := check("schema", f.schema == f.want, fmt.Sprintf("at version %d", f.schema)).or(Fail, fmt.Sprintf("at version %d, this program wants %d", f.schema, f.want), "seckill migrate")
	if f.schema > f.want {
		c.Status, c.Fix = Warn, "a newer program has migrated it: upgrade this one"
	}
	return []Check{c}
}

// The offsets of clocks that are noticed. Windows are Redis's time and deadlines
// MySQL's: they must mean the same moment.
const (
	clockWarn = 500 * time.Millisecond
	clockFail = 5 * time.Second
)

func (f facts) checkClocks() (out []Check) {
	if f.clocksErr != nil {
		return unreadable("clocks", f.clocksErr, "the servers must answer first")
	}
	all := append([]clock{{name: "this machine"}}, f.clocks...)
	for i, a := range all {
		for _, b := range all[i+1:] {
			off, within := (b.offset - a.offset).Abs(), a.within+b.within
			text := fmt.Sprintf("%s and %s are %s apart, to within %s", a.name, b.name, off.Round(time.Millisecond), within.Round(time.Millisecond))
			c := check("clock "+a.name+" / "+b.name, off-within <= clockWarn, text).or(Warn,
				text+": a sale opens, or a deadline falls, at another moment than people were told", "run NTP (chrony) on all of them")
			if off-within > clockFail {
				c.Status = Fail
			}
			out = append(out, c)
		}
	}
	return out
}

func (f facts) checkBrokers() []Check {
	if f.brokersErr != nil {
		return unreadable("kafka", f.brokersErr, "start Kafka, or correct the setting kafka")
	}
	bad := func(name, want string) (which []string) {
		for id, s := range f.brokers {
			if value, told := s[name]; told && value != want {
				which = append(which, strconv.Itoa(id))
			}
		}
		slices.Sort(which)
		return which
	}
	auto, unclean := bad("auto.create.topics.enable", "false"), bad("unclean.leader.election.enable", "false")
	out := []Check{
		check("kafka brokers", len(f.brokers) >= 3, fmt.Sprintf("%d brokers", len(f.brokers))).or(Warn,
			fmt.Sprintf("%d broker(s): an acknowledged event is on too few disks to lose one", len(f.brokers)), "run three; topics want replication 3, min.insync.replicas 2"),
		check("kafka auto-create", len(auto) == 0, "topics are made only on purpose").or(Fail,
			"auto.create.topics.enable is true on broker "+strings.Join(auto, ", ")+": a topic that is missing, or misspelt, is made with one partition and one copy", "auto.create.topics.enable=false"),
		check("kafka unclean election", len(unclean) == 0, "a leader has all that was acknowledged").or(Fail,
			"unclean.leader.election.enable is true on broker "+strings.Join(unclean, ", ")+": acknowledged events may be lost", "unclean.leader.election.enable=false"),
	}
	return append(out, f.checkOffsets()...)
}

// checkOffsets compares how long Kafka remembers the offsets of a group that
// has no members with the retention of the dead letters: the progress of dlq
// redrive is such a group.
func (f facts) checkOffsets() []Check {
	var longest time.Duration
	for _, t := range f.topics {
		if strings.HasSuffix(string(t.Name), ".dlq") {
			longest = max(longest, t.Retention)
		}
	}
	shortest := time.Duration(-1)
	for _, s := range f.brokers {
		if minutes, err := strconv.Atoi(s["offsets.retention.minutes"]); err == nil && (shortest < 0 || time.Duration(minutes)*time.Minute < shortest) {
			shortest = time.Duration(minutes) * time.Minute
		}
	}
	if shortest < 0 || longest == 0 {
		return nil
	}
	return []Check{check("kafka offsets retention", shortest >= longest, "the progress of a redrive is remembered as long as the letters").or(Warn,
		fmt.Sprintf("offsets of idle groups are forgotten after %s, dead letters are kept for %s: letters that were dropped or sent back show up again as waiting", shortest, longest),
		fmt.Sprintf("offsets.retention.minutes=%d", int(longest.Minutes())))}
}

func (f facts) checkTopics() []Check {
	if f.topicsErr != nil {
		return unreadable("topics", f.topicsErr, "the brokers must answer first")
	}
	var out []Check
	for _, t := range f.topics {
		for _, c := range t.Changes {
			status := Warn
			if t.Missing || c.What == "partitions" || (c.What == "min.insync.replicas" && c.Danger != topics.Shrinks) || c.What == "replication" {
				status = Fail
			}
			fix := "seckill topics plan, then seckill topics apply"
			if c.Note != "" {
				fix = c.Note
			}
			out = append(out, Check{Name: "topic " + c.Topic, Status: status, Why: fmt.Sprintf("%s is %q, topics.yaml wants %q", c.What, c.Have, c.Want), Fix: fix})
		}
		if !t.Missing && (t.HaveRetention < 0 || (f.ledger > 0 && t.HaveRetention >= f.ledger)) {
			out = append(out, Check{
				Name: "topic " + t.FullName, Status: Fail, Fix: "give the topic a retention that is shorter than the ledger's",
				Why: fmt.Sprintf("its records outlive the ledger's rows (%s against %s): replayed, they would be taken for new ones", kept(t.HaveRetention), kept(f.ledger)),
			})
		}
	}
	if len(out) == 0 {
		out = []Check{{Name: "topics", Status: OK, Why: fmt.Sprintf("%d topics as topics.yaml plans them, their retention shorter than the ledger's (%s)", len(f.topics), kept(f.ledger))}}
	}
	return out
}

func kept(d time.Duration) string {
	if d <= 0 {
		return "for ever"
	}
	return d.String()
}

func (f facts) checkGroups() (out []Check) {
	if f.groupsErr != nil {
		return unreadable("groups", f.groupsErr, "the brokers must answer first")
	}
	for _, g := range f.groups {
		role := "stock-worker"
		if g.name == "settle" || g.name == "payment" {
			role = "settle-worker"
		}
		c := Check{Name: "group " + g.name, Status: OK, Why: fmt.Sprintf("%d members for %d partitions, %s", g.members, g.partitions, g.state)}
		switch {
		case g.members == 0:
			c.Status, c.Why, c.Fix = Fail, "no member: nobody handles its topic", "start a "+role
		case g.members > g.partitions:
			c.Status, c.Why, c.Fix = Warn, fmt.Sprintf("%d members for %d partitions: some have nothing to do", g.members, g.partitions), "run fewer, or more partitions when nothing is on sale"
		case g.members == 1:
			c.Status, c.Why, c.Fix = Warn, "one member: when it dies, its topic stands still until another is started", "start a second "+role
		}
		out = append(out, c)
	}
	return out
}

func (f facts) checkSales() (out []Check) {
	if f.salesErr != nil {
		return unreadable("activity", f.salesErr, "seckill activity list shows what there is")
	}
	for _, s := range f.sales {
		name := "activity " + s.activity.ID
		out = append(out, check(name, s.activity.State == catalog.Online && f.now.Before(s.activity.EndsAt),
			fmt.Sprintf("online from %s to %s", s.activity.StartsAt.Format(time.RFC3339), s.activity.EndsAt.Format(time.RFC3339))).or(Warn,
			fmt.Sprintf("is %s, and ends %s: nobody can buy", s.activity.State, s.activity.EndsAt.Format(time.RFC3339)), "seckill activity publish "+s.activity.ID))
		var units int64
		for _, w := range s.wares {
			units += w.available
			out = append(out, w.check(s.activity))
		}
		if f.bench.File != "" {
			out = append(out, f.capacity(name, units))
		}
	}
	return out
}

func (w ware) check(a catalog.Activity) Check {
	c := Check{Name: "product " + w.id, Status: OK, Why: fmt.Sprintf("loaded, %d of %d units to be had", w.surplus, w.total)}
	switch {
	case !w.balanced:
		c.Status, c.Why, c.Fix = Fail, "available and deducted units are not the total in the ledger", "seckill reconcile --activity "+a.ID
	case !w.loaded && a.State == catalog.Online:
		c.Status, c.Why, c.Fix = Fail, "is not in Redis: nobody can buy it", "seckill cache preload "+a.ID+", and see that a stock-worker runs: its healer loads what is missing"
	case !w.loaded:
		c.Status, c.Why, c.Fix = Warn, "is not in Redis yet", "seckill activity publish loads it"
	case w.stopped:
		c.Status, c.Why, c.Fix = Warn, "is sold out at its source, or stopped: nothing is sold", "seckill stock resume, if that is not meant"
	case !w.moved && w.surplus != w.available:
		c.Status, c.Why, c.Fix = Fail, fmt.Sprintf("Redis would sell %d units, the ledger has %d", w.surplus, w.available), "seckill reconcile --activity "+a.ID
	}
	return c
}

// settleLimit is how long the ledger may take for all units of a sale: after
// that, the sweeper publishes again what merely waits.
const settleLimit = time.Minute

func (f facts) capacity(name string, units int64) Check {
	if f.bench.Rate <= 0 {
		return Check{Name: name + " capacity", Status: Warn, Why: f.bench.File + " has no pipeline_rate", Fix: "seckill bench pipeline -o json > " + f.bench.File}
	}
	takes := time.Duration(float64(units) / f.bench.Rate * float64(time.Second))
	text := fmt.Sprintf("%d units at the %.0f rows a second of %s are in the ledger after %s", units, f.bench.Rate, f.bench.File, takes.Round(100*time.Millisecond))
	return check(name+" capacity", takes <= settleLimit, text).or(Warn, text+": buyers wait that long for their order", "more stock-workers and products on more partitions, or faster disks under MySQL; measure again with seckill bench pipeline")
}

// knownWords are secrets that anybody tries first.
func knownWords() []string {
	return []string{"secret", "password", "changeme", "change-me", "example", "default", "seckill", "admin", "test", "dev-", "demo", "0123456789", "1234567890", "abcdefgh"}
}

// weak says why a secret is none.
func weak(secret string) string {
	lower := strings.ToLower(secret)
	letters := map[rune]bool{}
	for _, r := range secret {
		letters[r] = true
	}
	switch i := slices.IndexFunc(knownWords(), func(word string) bool { return strings.Contains(lower, word) }); {
	case secret == "":
		return "is empty"
	case len(secret) < 24:
		return fmt.Sprintf("has %d characters, want 24 or more", len(secret))
	case i >= 0:
		return "holds the word " + knownWords()[i]
	case len(letters) < 8:
		return "is made of a few characters"
	}
	return ""
}

func (f facts) checkSecrets() []Check {
	const fix = "openssl rand -hex 32, and give it by a file: SECKILL_…_FILE"
	s := f.secrets
	named := map[string]string{"id-key": s.IDKey}
	for _, entry := range s.Keys {
		if part := strings.SplitN(entry, ":", 3); len(part) == 3 {
			named["keys "+part[1]] = part[2]
		}
	}
	for _, entry := range s.TokenKeys {
		id, secret, _ := strings.Cut(entry, ":")
		named["token-keys "+id] = secret
	}
	if s.IDKey == "" && len(s.Keys) == 0 { // run where the gateway's settings are not
		delete(named, "id-key")
	}
	var out []Check
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		why := weak(named[name])
		if other := seen[named[name]]; why == "" && other != "" {
			why = "is the same as " + other
		}
		seen[named[name]] = name
		out = append(out, check("secret "+name, why == "", "long and not a known word").or(Fail, why, fix))
	}
	if len(out) == 0 {
		out = append(out, Check{Name: "secrets", Status: Warn, Why: "the gateway's secrets are not in this environment, so nobody has looked at them", Fix: "run doctor with the gateway's settings"})
	}
	return append(out, s.doors()...)
}

// doors looks at how the servers are reached.
func (s Secrets) doors() []Check {
	user, password, host := dsn(s.MySQL)
	redisOpen := !strings.Contains(s.Redis, "@")
	return []Check{
		door("mysql", !(password == "" || user == "root"), host, "as "+user+map[bool]string{true: " without a password", false: ""}[password == ""], "a user of its own with a password"),
		door("redis", !redisOpen, redisHost(s.Redis), "without a password", "redis://user:password@host:port, or rediss:// for TLS"),
		door("kafka", s.KafkaUser != "" && s.KafkaTLS, strings.Split(s.Kafka, ",")[0], "without TLS and a user: whoever reaches a broker can forge events", "--kafka-tls and --kafka-user, and ACLs for the topics"),
	}
}

// door is a way to a server: on this machine an open one is a warning.
func door(name string, closed bool, host, how, fix string) Check {
	status := Fail
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if ip := net.ParseIP(host); host == "localhost" || (ip != nil && ip.IsLoopback()) {
		status = Warn
	}
	return check("door "+name, closed, "authenticated").or(status, fmt.Sprintf("%s is reached at %s %s", name, host, how), fix)
}

// dsn takes user:password@tcp(host:port)/schema apart.
func dsn(text string) (user, password, host string) {
	at := strings.LastIndex(text, "@")
	if at < 0 {
		return "", "", ""
	}
	user, password, _ = strings.Cut(text[:at], ":")
	_, rest, _ := strings.Cut(text[at:], "(")
	host, _, _ = strings.Cut(rest, ")")
	return user, password, host
}

func redisHost(text string) string {
	first, _, _ := strings.Cut(text, ",")
	if u, err := url.Parse(first); err == nil && u.Host != "" {
		return u.Host
	}
	return first
}
