// Asks porcupine whether a history is linearizable: each key alone, and, where
// it is short, the whole store. Reads a history as JSON from standard input and
// writes a verdict as JSON.
package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	// How long porcupine may search for one verdict.
	searchMax = 5 * time.Second
	// Histories with more operations are too long for the whole model.
	modelOperationsMax = 400
)

// Verdict is what is written: "Ok", "Illegal", "Unknown" (no time left) or "Skipped".
type Verdict struct {
	Keys  map[string]string `json:"keys"`
	Model string            `json:"model"`
}

func main() {
	var history History
	if err := json.NewDecoder(os.Stdin).Decode(&history); err != nil {
		fmt.Fprintln(os.Stderr, "history:", err)
		os.Exit(1)
	}
	verdict := Verdict{Keys: checkKeys(&history), Model: checkModel(&history)}
	if err := json.NewEncoder(os.Stdout).Encode(verdict); err != nil {
		fmt.Fprintln(os.Stderr, "verdict:", err)
		os.Exit(1)
	}
}

// operation is one that porcupine may place: without an answer it may be at any
// later time, and at the very end it may as well never have been.
func operation(one *Operation, output any) porcupine.Operation {
	returned := one.Returned
	if one.Outcome.Done == nil {
		returned = math.MaxInt64
	}
	return porcupine.Operation{ClientId: int(one.Client), Input: one, Call: one.Invoked, Output: output, Return: returned}
}

func checkModel(history *History) string {
	if len(history.Operations) > modelOperationsMax {
		return "Skipped"
	}
	var operations []porcupine.Operation
	for at := range history.Operations {
		one := &history.Operations[at]
		if one.Outcome.Refused != nil || one.Action.isLease() || one.Action.isSerializable() {
			continue
		}
		if one.Action.usesLease() {
			return "Skipped"
		}
		operations = append(operations, operation(one, one.Outcome.Done))
	}
	return string(porcupine.CheckOperationsTimeout(storeModel, operations, searchMax))
}

func checkKeys(history *History) map[string]string {
	parts := map[string][]porcupine.Operation{}
	skipped := map[string]bool{}
	for at := range history.Operations {
		one := &history.Operations[at]
		if one.Outcome.Refused != nil || one.Action.isLease() || one.Action.isSerializable() {
			continue
		}
		keys, single := one.Action.keys()
		for _, key := range keys {
			skipped[key] = skipped[key] || !single
			parts[key] = append(parts[key], operation(one, one.Outcome.Done))
		}
	}
	names := nameValues(history)
	verdicts := map[string]string{}
	for key, part := range parts {
		if skipped[key] {
			verdicts[key] = "Skipped"
			continue
		}
		model := registerModel(names[key])
		verdicts[key] = string(porcupine.CheckOperationsTimeout(model, part, searchMax))
	}
	return verdicts
}
