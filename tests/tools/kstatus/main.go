// Reads a JSON array of objects and prints what kstatus says of each, a line of JSON each.
package main

import (
	"encoding/json"
	"io"
	"log"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

func main() {
	log.SetFlags(0)
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	var objects []any
	// Not Go's own: numbers are to be whole, as in what a client of Kubernetes reads.
	if err := utiljson.Unmarshal(input, &objects); err != nil {
		log.Fatal(err)
	}
	output := json.NewEncoder(os.Stdout)
	for _, object := range objects {
		content, _ := object.(map[string]any)
		result, err := status.Compute(&unstructured.Unstructured{Object: content})
		if err != nil {
			log.Fatal(err)
		}
		if err := output.Encode([]string{string(result.Status), result.Message}); err != nil {
			log.Fatal(err)
		}
	}
}
