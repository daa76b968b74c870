// Command cmd runs the simulator of the protocol.
//
//	go run ./internal/simulator/cmd --seeds 1000000
//	go run ./internal/simulator/cmd --seed 4711 -v
//	go run ./internal/simulator/cmd --seeds 300000 --mutant no-reaper
//
// It ends with 1 when a law was broken; of a mutant, when none was.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/leadingpeers/seckill/internal/simulator"
	"github.com/leadingpeers/seckill/internal/simulator/memory"
)

func main() {
	seeds := flag.Uint64("seeds", 100_000, "how many runs")
	first := flag.Uint64("seed", 0, "the first run's seed; without --seeds only that one runs")
	name := flag.String("mutant", "none", "take a protection out: one of the names that --mutant help lists")
	verbose := flag.Bool("v", false, "print every step of the one run")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "runs side by side")
	within := flag.Duration("within", 0, "begin no run after this time, so that as many as fit are played; 0 = all seeds")
	flag.Parse()
	mutant, ok := memory.MutantOf(*name)
	if !ok {
		fmt.Fprintf(os.Stderr, "no mutant %q; there are:\n", *name)
		for _, m := range memory.Mutants() {
			fmt.Fprintln(os.Stderr, " ", m)
		}
		os.Exit(2)
	}
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["seed"] && !given["seeds"] || *verbose {
		one(mutant, *first, *verbose)
		return
	}
	debug.SetGCPercent(1000) // there is little to keep
	report := simulator.Many(mutant, *first, *seeds, *workers, *within)
	fmt.Print(report)
	if (mutant == memory.None) != (report.Violations == 0) {
		os.Exit(1)
	}
}

// one plays one run.
func one(mutant memory.Mutant, seed uint64, verbose bool) {
	s := simulator.New(mutant)
	defer s.Close()
	if verbose {
		s.Trace(func(line string) { fmt.Println(line) })
	}
	if broken := s.Run(seed); broken != "" {
		fmt.Printf("seed %d: %s\n", seed, broken)
		os.Exit(1)
	}
	fmt.Printf("seed %d: no law broken\n", seed)
}
