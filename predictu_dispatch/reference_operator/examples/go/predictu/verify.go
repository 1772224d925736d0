package predictu

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"time"
)

type Callback struct {
	Method    string          `json:"method"`
	RequestID string          `json:"request_id"`
	Params    json.RawMessage `json:"params"`
}

type token struct {
	Alg, Kid, Iss, Sub, Jti, Method, Digest string
	Iat, Exp                                int64
}

// VerifiedCallback returns the callback in body, or an error if it is not Predictu's.
func VerifiedCallback(authorization string, body []byte, keys map[string]crypto.PublicKey, algorithm, operatorID string, now time.Time) (*Callback, error) {
	scheme, compact, _ := strings.Cut(authorization, " ")
	parts := strings.Split(compact, ".")
	if !strings.EqualFold(scheme, "Bearer") || len(parts) != 3 {
		return nil, errors.New("no bearer token")
	}
	var octets [3][]byte
	for i, part := range parts {
		var err error
		if octets[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			return nil, err
		}
	}
	var head, claims token
	if err := json.Unmarshal(octets[0], &head); err != nil || head.Alg != algorithm {
		return nil, errors.New("alg is not the expected one")
	}
	signed, good := []byte(parts[0]+"."+parts[1]), false
	switch key := keys[head.Kid].(type) {
	case ed25519.PublicKey:
		good = algorithm == "EdDSA" && ed25519.Verify(key, signed, octets[2])
	case *rsa.PublicKey:
		hash := sha256.Sum256(signed)
		good = algorithm == "RS256" && rsa.VerifyPKCS1v15(key, crypto.SHA256, hash[:], octets[2]) == nil
	}
	if !good {
		return nil, errors.New("kid or signature")
	}

	if err := json.Unmarshal(octets[1], &claims); err != nil {
		return nil, err
	}
	at, digest := now.Unix(), sha256.Sum256(body)
	var callback Callback
	switch {
	case claims.Iss != "predictu" || claims.Sub != operatorID:
		return nil, errors.New("iss or sub")
	case claims.Iat == 0 || claims.Iat > at+5 || claims.Exp <= at-5 || claims.Exp-claims.Iat > 300:
		return nil, errors.New("iat or exp")
	case claims.Digest != hex.EncodeToString(digest[:]):
		return nil, errors.New("digest does not match the body")
	}
	if err := json.Unmarshal(body, &callback); err != nil {
		return nil, err
	}
	if jti, _, _ := strings.Cut(claims.Jti, ":"); jti != callback.RequestID || claims.Method != callback.Method {
		return nil, errors.New("jti or method does not match the body")
	}
	return &callback, nil
}

func PublicKey(text []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}
