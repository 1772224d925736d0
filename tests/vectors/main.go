// Prints the names of the vectors that the README's Go, package predictu beside this file, accepts.
package main

import (
	"crypto"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"vectors/predictu"
)

func main() {
	var vectors struct {
		OperatorID string            `json:"operator_id"`
		Pems       map[string]string `json:"pems"`
		Cases      []struct {
			Name, Algorithm, Authorization string
			Now                            int64
			Body                           []byte `json:"body_base64"`
		}
	}
	text, err := os.ReadFile(os.Args[1])
	must(err)
	must(json.Unmarshal(text, &vectors))
	keys := map[string]crypto.PublicKey{}
	for kid, pem := range vectors.Pems {
		key, err := predictu.PublicKey([]byte(pem))
		must(err)
		keys[kid] = key
	}
	accepted := []string{}
	for _, vector := range vectors.Cases {
		callback, err := predictu.VerifiedCallback(vector.Authorization, vector.Body, keys, vector.Algorithm, vectors.OperatorID, time.Unix(vector.Now, 0))
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", vector.Name, err)
		} else if callback.Params != nil {
			accepted = append(accepted, vector.Name)
		}
	}
	must(json.NewEncoder(os.Stdout).Encode(accepted))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
