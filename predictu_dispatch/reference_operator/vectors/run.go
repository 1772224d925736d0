// Runs vectors.json against predictu/verify.go; exit code 1 if a verdict is wrong.
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
			Accept                         bool
		}
	}
	file := "../vectors.json"
	if len(os.Args) > 1 {
		file = os.Args[1]
	}
	text, err := os.ReadFile(file)
	must(err)
	must(json.Unmarshal(text, &vectors))
	keys := map[string]crypto.PublicKey{}
	for kid, pem := range vectors.Pems {
		keys[kid], err = predictu.PublicKey([]byte(pem))
		must(err)
	}
	wrong := 0
	for _, vector := range vectors.Cases {
		_, err := predictu.VerifiedCallback(vector.Authorization, vector.Body, keys, vector.Algorithm, vectors.OperatorID, time.Unix(vector.Now, 0))
		if vector.Accept == (err == nil) {
			continue
		}
		wrong++
		if err == nil {
			fmt.Fprintf(os.Stderr, "%s: accepted\n", vector.Name)
		} else {
			fmt.Fprintf(os.Stderr, "%s: refused: %v\n", vector.Name, err)
		}
	}
	fmt.Printf("%d of %d cases as expected\n", len(vectors.Cases)-wrong, len(vectors.Cases))
	if wrong > 0 {
		os.Exit(1)
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
