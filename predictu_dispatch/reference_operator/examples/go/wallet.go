// The wallet's rules. Nothing here reads or writes a file.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"operator/predictu"
)

const (
	subunitsMax = 999_999_999_999_999_999
	neverPlaced = "never_placed"
)

var ends = map[string]string{
	"BET_WIN": "won", "BET_LOSE": "lost", "BET_SELL": "sold", "BET_REFUND": "refunded", "BET_ROLLBACK": "rolled_back",
}

// Answer is what is sent and stored.
type Answer struct {
	HTTP          int    `json:"-"`
	Status        string `json:"status"`
	Balance       *int64 `json:"balance,omitempty"`
	TransactionID string `json:"transaction_id,omitempty"`
	Message       string `json:"message,omitempty"`
}

// Account is a player's wallet in one currency.
type Account struct{ Player, Currency string }

// Bet is a bet, or the tombstone of one that was rolled back before its debit arrived.
type Bet struct {
	ID, Debit string
	Account   Account
	Amount    int64
	State     string
}

// Entry is one line of the journal: a stored answer with everything that it booked.
type Entry struct {
	RequestID string   `json:",omitempty"`
	Digest    string   `json:",omitempty"`
	HTTP      int      `json:",omitempty"`
	Answer    *Answer  `json:",omitempty"`
	Account   *Account `json:",omitempty"`
	Delta     int64    `json:",omitempty"`
	Bet       *Bet     `json:",omitempty"`
}

// Wallet has the accounts, the bets and the stored answers.
type Wallet struct {
	balances map[Account]int64
	bets     map[string]Bet    // By bet_id.
	debits   map[string]string // The bet_id by the request_id of its BET_MAKE.
	stored   map[string]Entry  // By request_id.
}

// NewWallet returns an empty wallet.
func NewWallet() *Wallet {
	return &Wallet{balances: map[Account]int64{}, bets: map[string]Bet{}, debits: map[string]string{}, stored: map[string]Entry{}}
}

// call has a callback's parameters, checked.
type call struct {
	method, requestID, betID, rollbackOf string
	account                              Account
	amount                               int64
}

// decide returns the answer and, if something must be stored, the entry. It changes nothing.
func (w *Wallet) decide(callback *predictu.Callback, digest string) (Answer, *Entry) {
	if entry, found := w.stored[callback.RequestID]; found {
		if entry.Digest != digest {
			return refusal(http.StatusConflict, "REQUEST_ID_REUSED"), nil
		}
		answer := *entry.Answer
		answer.HTTP = entry.HTTP
		if answer.Status == "OK" {
			answer.Status = "DUPLICATE"
		}
		return answer, nil
	}
	c, err := read(callback)
	if err != nil {
		answer := refusal(http.StatusBadRequest, "BAD_REQUEST")
		answer.Message = err.Error()
		return answer, nil
	}
	answer, entry := w.rule(c)
	if entry != nil {
		entry.RequestID, entry.Digest, entry.HTTP, entry.Answer = c.requestID, digest, answer.HTTP, &answer
	}
	return answer, entry
}

func (w *Wallet) rule(c call) (Answer, *Entry) {
	balance, exists := w.balances[c.account]
	switch c.method {
	case "PING":
		return Answer{HTTP: http.StatusOK, Status: "OK"}, nil
	case "BALANCE":
		if !exists {
			return refusal(http.StatusNotFound, "PLAYER_NOT_FOUND"), nil
		}
		return Answer{HTTP: http.StatusOK, Status: "OK", Balance: &balance}, nil
	case "BET_MAKE":
		answer, entry := w.place(c, balance, exists)
		if entry == nil {
			entry = &Entry{} // A refusal is stored too: the bet has failed for the player.
		}
		return answer, entry
	}
	return w.end(c)
}

func (w *Wallet) place(c call, balance int64, exists bool) (Answer, *Entry) {
	known, found := w.find(c.betID, c.requestID)
	switch {
	case found && known.State == neverPlaced:
		return refusal(http.StatusConflict, "BET_CLOSED"), nil
	case found:
		return refusal(http.StatusConflict, "BET_EXISTS"), nil
	case !exists:
		return refusal(http.StatusNotFound, "PLAYER_NOT_FOUND"), nil
	case balance < c.amount:
		answer := refusal(http.StatusOK, "INSUFFICIENT_FUNDS")
		answer.Balance = &balance
		return answer, nil
	}
	return booked(balance, -c.amount, Bet{ID: c.betID, Debit: c.requestID, Account: c.account, Amount: c.amount, State: "open"})
}

func (w *Wallet) end(c call) (Answer, *Entry) {
	bet, found := w.find(c.betID, c.rollbackOf)
	if !found && c.method == "BET_ROLLBACK" {
		// The debit may still arrive. It must then be refused, so the bet is stored as never placed.
		tombstone := Bet{ID: c.betID, Debit: c.rollbackOf, Account: c.account, Amount: c.amount, State: neverPlaced}
		return refusal(http.StatusNotFound, "TRANSACTION_NOT_FOUND"), &Entry{Bet: &tombstone}
	}
	if !found {
		return refusal(http.StatusNotFound, "BET_NOT_FOUND"), nil
	}
	if c.method == "BET_LOSE" {
		c.account.Currency = bet.Account.Currency // BET_LOSE has none.
	}
	givesBack := c.method == "BET_REFUND" || c.method == "BET_ROLLBACK"
	balance := w.balances[bet.Account]
	switch {
	case bet.ID != c.betID || bet.Account != c.account || givesBack && bet.Amount != c.amount:
		return refusal(http.StatusUnprocessableEntity, "BET_MISMATCH"), nil
	case c.method == "BET_ROLLBACK" && bet.Debit != c.rollbackOf:
		return refusal(http.StatusUnprocessableEntity, "BET_MISMATCH"), nil
	case c.method == "BET_ROLLBACK" && bet.State == neverPlaced:
		return refusal(http.StatusNotFound, "TRANSACTION_NOT_FOUND"), nil
	case bet.State != "open":
		return refusal(http.StatusConflict, "BET_CLOSED"), nil
	case c.amount > subunitsMax-balance:
		return refusal(http.StatusUnprocessableEntity, "WALLET_LIMIT"), nil
	}
	bet.State = ends[c.method]
	return booked(balance, c.amount, bet)
}

// find returns the bet with this bet_id, or else the one that this debit placed.
func (w *Wallet) find(betID, debit string) (Bet, bool) {
	if bet, found := w.bets[betID]; found {
		return bet, true
	}
	bet, found := w.bets[w.debits[debit]]
	return bet, found
}

// book carries out an entry, now and when the journal is read again.
func (w *Wallet) book(entry Entry) {
	if entry.RequestID != "" {
		w.stored[entry.RequestID] = entry
	}
	if entry.Account != nil {
		w.balances[*entry.Account] += entry.Delta
	}
	if entry.Bet != nil {
		w.bets[entry.Bet.ID] = *entry.Bet
		w.debits[entry.Bet.Debit] = entry.Bet.ID
	}
}

func booked(balance, delta int64, bet Bet) (Answer, *Entry) {
	after := balance + delta
	var id [12]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(err)
	}
	answer := Answer{HTTP: http.StatusOK, Status: "OK", Balance: &after, TransactionID: "tx-" + hex.EncodeToString(id[:])}
	return answer, &Entry{Account: &bet.Account, Delta: delta, Bet: &bet}
}

func refusal(code int, status string) Answer {
	return Answer{HTTP: code, Status: status}
}

// read checks the parameters. Further ones are ignored, whatever they hold.
func read(callback *predictu.Callback) (call, error) {
	var params map[string]json.RawMessage
	if err := json.Unmarshal(callback.Params, &params); err != nil {
		return call{}, err
	}
	var fault error
	text := func(key string) string {
		var value string
		if err := json.Unmarshal(params[key], &value); err != nil || value == "" || len(value) > 800 {
			fault = fmt.Errorf("params: %s is not a text of 1 to 200 characters", key)
		}
		return value
	}
	c := call{method: callback.Method, requestID: callback.RequestID}
	if c.method == "PING" {
		return c, nil
	}
	c.account.Player = text("player_id")
	if c.method != "BET_LOSE" {
		c.account.Currency = text("currency")
	}
	if c.method == "BALANCE" {
		return c, fault
	}
	c.betID = text("bet_id")
	if _, isEnd := ends[c.method]; !isEnd && c.method != "BET_MAKE" {
		return call{}, fmt.Errorf("unknown method %q", c.method)
	}
	if c.method == "BET_ROLLBACK" {
		c.rollbackOf = text("rollback_of")
	}
	if c.method != "BET_LOSE" {
		// The digits as they were sent: 12.5, 1e3 and a text are no whole subunits.
		amount, err := strconv.ParseInt(string(bytes.TrimSpace(params["amount"])), 10, 64)
		if err != nil || amount < 0 || amount > subunitsMax || c.method == "BET_MAKE" && amount == 0 {
			fault = fmt.Errorf("params: amount is not a whole number of subunits")
		}
		c.amount = amount
	}
	return c, fault
}
