package main

import (
	"encoding/json"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/leadingpeers/seckill/internal/app"
)

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs}
	output := cmd.Flags().StringP("output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output == "json" {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{
				"version": app.Version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
			})
		}
		cmd.Println("seckill", app.Version(), runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
		return nil
	}
	return cmd
}
