package testservers

import "testing"

func embeddedRedis(t testing.TB) string   { t.Fatal("not wired yet"); return "" }
func embeddedKafka(t testing.TB) []string { t.Fatal("not wired yet"); return nil }

func embeddedMySQL(t testing.TB) string { t.Fatal("not wired yet"); return "" }
