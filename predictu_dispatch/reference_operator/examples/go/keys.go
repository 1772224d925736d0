// Reads JWKS files and names PEM keys.
package main

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// readJWKS adds the Ed25519 and RSA keys of a JWKS.
func readJWKS(text []byte, keys map[string]crypto.PublicKey) error {
	var set struct {
		Keys []struct{ Kty, Crv, Kid, X, N, E string }
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return err
	}
	octets := base64.RawURLEncoding.DecodeString
	for _, jwk := range set.Keys {
		switch x, _ := octets(jwk.X); {
		case jwk.Kty == "OKP" && jwk.Crv == "Ed25519" && len(x) == ed25519.PublicKeySize:
			keys[jwk.Kid] = ed25519.PublicKey(x)
		case jwk.Kty == "RSA":
			n, errN := octets(jwk.N)
			e, errE := octets(jwk.E)
			exponent := new(big.Int).SetBytes(e)
			if errN != nil || errE != nil || !exponent.IsInt64() || len(n) < 256 {
				return errors.New("an RSA key is malformed or shorter than 2048 bits")
			}
			keys[jwk.Kid] = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
		default:
			return fmt.Errorf("key %q is neither Ed25519 nor RSA", jwk.Kid)
		}
	}
	return nil
}

// thumbprint returns the kid of a PEM key: its RFC 7638 thumbprint.
func thumbprint(key crypto.PublicKey) string {
	text := base64.RawURLEncoding.EncodeToString
	canonical := ""
	switch key := key.(type) {
	case ed25519.PublicKey:
		canonical = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, text(key))
	case *rsa.PublicKey:
		e := big.NewInt(int64(key.E)).Bytes()
		canonical = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, text(e), text(key.N.Bytes()))
	}
	hash := sha256.Sum256([]byte(canonical))
	return text(hash[:])
}
