// A small, complete operator for Predictu's callbacks. Go 1.19, standard library only.
//
// It was written from the guide, ../../README.md, and does what the guide asks: it verifies before it
// parses, stores each request_id with its answer, books all or nothing, and answers after the commit.
// wallet.go decides. This file receives, commits and answers. For production, replace the journal by
// your database: the account, the bet and the stored answer in one transaction.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"operator/predictu"
)

const (
	bodyBytesMax = 256 << 10
	batchMax     = 256
)

// files is a repeatable option.
type files []string

func (f *files) String() string         { return strings.Join(*f, ",") }
func (f *files) Set(value string) error { *f = append(*f, value); return nil }

// arrival is a verified callback that waits for its answer.
type arrival struct {
	callback *predictu.Callback
	digest   string
	answer   chan Answer
}

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC | log.Lmsgprefix)
	log.SetPrefix("operator: ")
	var jwks, pems files
	flag.Var(&jwks, "jwks", "Predictu's keys, JWKS; repeatable")
	flag.Var(&pems, "public-key", "Predictu's key, PEM; repeatable")
	operatorID := flag.String("operator-id", "", "your operator id at Predictu")
	algorithm := flag.String("algorithm", "EdDSA", "the agreed algorithm, EdDSA or RS256")
	database := flag.String("database", "", "the journal's file")
	listen := flag.String("listen", "127.0.0.1:8080", "HOST:PORT; port 0: any free port")
	path := flag.String("path", "/predictu", "the URL's path")
	currency := flag.String("currency", "EUR", "the currency of --players")
	players := flag.String("players", "", "players to create if missing: player-1=100000,player-2=100000")
	flag.Parse()
	if *operatorID == "" || *database == "" {
		usage(errors.New("give --operator-id ID and --database FILE"))
	}
	keys, err := readKeys(jwks, pems)
	usage(err)
	listener, err := net.Listen("tcp", *listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("--listen %s: the address is in use", *listen)
	}
	usage(err)
	journal, wallet, err := open(*database)
	usage(err)
	var created []Entry
	for _, pair := range strings.FieldsFunc(*players, func(r rune) bool { return r == ',' }) {
		player, balance, _ := strings.Cut(pair, "=")
		delta, err := strconv.ParseInt(balance, 10, 64)
		usage(err)
		account := Account{Player: player, Currency: *currency}
		if _, exists := wallet.balances[account]; !exists {
			created = append(created, Entry{Account: &account, Delta: delta})
			wallet.book(created[len(created)-1])
		}
	}
	usage(commit(journal, created))

	arrivals := make(chan arrival, batchMax)
	done := make(chan struct{})
	go func() {
		defer close(done)
		answerAll(wallet, journal, arrivals)
	}()
	mux := http.NewServeMux()
	mux.HandleFunc(*path, func(response http.ResponseWriter, request *http.Request) {
		if request.Method != http.MethodPost {
			send(response, Answer{HTTP: http.StatusMethodNotAllowed, Status: "METHOD_NOT_ALLOWED"})
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, bodyBytesMax))
		if err != nil {
			send(response, Answer{HTTP: http.StatusRequestEntityTooLarge, Status: "BAD_REQUEST"})
			return
		}
		callback, err := predictu.VerifiedCallback(request.Header.Get("Authorization"), body, keys, *algorithm, *operatorID, time.Now())
		if err != nil {
			log.Printf("401: %v", err)
			send(response, Answer{HTTP: http.StatusUnauthorized, Status: "UNAUTHORIZED"})
			return
		}
		digest := sha256.Sum256(body)
		waiting := arrival{callback: callback, digest: hex.EncodeToString(digest[:]), answer: make(chan Answer, 1)}
		arrivals <- waiting
		send(response, <-waiting.answer)
	})
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second}
	signals, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	line, _ := json.Marshal(map[string]string{"event": "operator.listening", "url": "http://" + listener.Addr().String() + *path})
	fmt.Println(string(line))
	<-signals.Done()
	deadline, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if server.Shutdown(deadline) == nil {
		close(arrivals)
		<-done
	}
}

// answerAll is the only goroutine that touches the wallet. All callbacks that wait are decided one after
// the other, written together with one fsync, and answered only then.
func answerAll(wallet *Wallet, journal *os.File, arrivals <-chan arrival) {
	for first := range arrivals {
		batch := []arrival{first}
		for len(batch) < batchMax && len(arrivals) > 0 {
			batch = append(batch, <-arrivals)
		}
		answers := make([]Answer, len(batch))
		var entries []Entry
		for i, waiting := range batch {
			var entry *Entry
			answers[i], entry = wallet.decide(waiting.callback, waiting.digest)
			if entry != nil {
				wallet.book(*entry)
				entries = append(entries, *entry)
			}
		}
		if err := commit(journal, entries); err != nil {
			// The memory is ahead of the file now. Only a new start, from the file, makes them equal.
			log.Fatalf("cannot write %s: %v", journal.Name(), err)
		}
		for i, waiting := range batch {
			waiting.answer <- answers[i]
		}
	}
}

func send(response http.ResponseWriter, answer Answer) {
	body, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	response.Header().Set("Content-Type", "application/json")
	response.WriteHeader(answer.HTTP)
	_, _ = response.Write(body)
}

// open reads the journal, one JSON entry a line, and returns it for appending, locked.
func open(file string) (*os.File, *Wallet, error) {
	journal, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := syscall.Flock(int(journal.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, nil, fmt.Errorf("%s: another process uses it", file)
	}
	wallet, end := NewWallet(), int64(0)
	for lines := bufio.NewReader(journal); ; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break // A process that was killed may have left a torn last line: it is cut off below.
		}
		var entry Entry
		if err == nil {
			err = json.Unmarshal(line, &entry)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s at byte %d: %w", file, end, err)
		}
		wallet.book(entry)
		end += int64(len(line))
	}
	if err := journal.Truncate(end); err != nil {
		return nil, nil, err
	}
	// What was written before the kill may not be on disk yet, nor the new file's name in its folder.
	if err := journal.Sync(); err != nil {
		return nil, nil, err
	}
	folder, err := os.Open(filepath.Dir(file))
	if err != nil {
		return nil, nil, err
	}
	defer folder.Close()
	return journal, wallet, folder.Sync()
}

// commit appends the entries and returns when they are on disk.
func commit(journal *os.File, entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, entry := range entries {
		if err := encoder.Encode(entry); err != nil {
			return err
		}
	}
	if _, err := journal.Write(lines.Bytes()); err != nil {
		return err
	}
	return journal.Sync()
}

// readKeys returns Predictu's keys by kid.
func readKeys(jwks, pems files) (map[string]crypto.PublicKey, error) {
	keys := map[string]crypto.PublicKey{}
	for _, file := range pems {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		key, err := predictu.PublicKey(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		keys[thumbprint(key)] = key
	}
	for _, file := range jwks {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := readJWKS(text, keys); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("give Predictu's key: --public-key FILE.pem or --jwks FILE")
	}
	return keys, nil
}

func usage(err error) {
	if err != nil {
		log.Println(err)
		os.Exit(2)
	}
}
