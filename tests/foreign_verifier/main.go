// Checks what our logs publish with golang.org/x/mod/sumdb, which others wrote. Reads a claim in each
// line of standard input, JSON, and prints "accepted" or "refused: " and the reason for each.
package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type claim struct {
	Kind      string   // checkpoint, inclusion, consistency (from old_note to note), tree (in folder), note
	Note      string   // a signed checkpoint
	Vkey      string   // of the log, or of the note's owner
	Witnesses []string // vkeys; all of them must have cosigned the note
	Index     int64
	Entry     []byte // or its hash
	LeafHash  []byte `json:"leaf_hash"`
	Proof     [][]byte
	OldNote   string `json:"old_note"`
	Folder    string // of a static log: checkpoint, tile/
	LeftOut   int    `json:"left_out"` // how many of its bundles of entries are not there
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var made claim
		err := json.Unmarshal(lines.Bytes(), &made)
		if err == nil {
			err = made.check()
		}
		if err != nil {
			fmt.Printf("refused: %s\n", strconv.Quote(err.Error()))
		} else {
			fmt.Println("accepted")
		}
	}
	if lines.Err() != nil {
		panic(lines.Err())
	}
}

func (made claim) check() error {
	if made.Kind == "tree" {
		return made.checkTree()
	}
	if made.Kind == "note" {
		signer, err := note.NewVerifier(made.Vkey)
		if err == nil {
			_, err = note.Open([]byte(made.Note), note.VerifierList(signer))
		}
		return err
	}
	tree, err := made.open(made.Note, made.Witnesses)
	if err != nil {
		return err
	}
	proof, err := hashes(made.Proof)
	if err != nil {
		return err
	}
	switch made.Kind {
	case "checkpoint":
		return nil
	case "inclusion":
		if made.Entry != nil {
			return tlog.CheckRecord(proof, tree.N, tree.Hash, made.Index, tlog.RecordHash(made.Entry))
		}
		leaf, err := hashes([][]byte{made.LeafHash})
		if err != nil {
			return err
		}
		return tlog.CheckRecord(proof, tree.N, tree.Hash, made.Index, leaf[0])
	case "consistency":
		old, err := made.open(made.OldNote, nil)
		if err != nil {
			return err
		}
		return tlog.CheckTree(tlog.TreeProof(proof), tree.N, tree.Hash, old.N, old.Hash)
	}
	return fmt.Errorf("unknown kind %q", made.Kind)
}

// open verifies a signed checkpoint and returns its tree.
func (made claim) open(signed string, witnesses []string) (tree tlog.Tree, err error) {
	log, err := note.NewVerifier(made.Vkey)
	if err != nil {
		return tree, err
	}
	verifiers := []note.Verifier{log}
	for _, vkey := range witnesses {
		witness, err := newWitness(vkey)
		if err != nil {
			return tree, err
		}
		verifiers = append(verifiers, witness)
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(verifiers...))
	if err != nil {
		return tree, err
	}
	if len(opened.Sigs) != len(verifiers) {
		return tree, fmt.Errorf("%d of %d keys signed", len(opened.Sigs), len(verifiers))
	}
	// The package's ParseTree takes only the origin of the Go checksum database.
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != log.Name() {
		return tree, errors.New("not a checkpoint of this log")
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil || strconv.FormatInt(tree.N, 10) != lines[1] {
		return tree, fmt.Errorf("size %q", lines[1])
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

// A witness verifies cosignatures, which the package does not know (c2sp.org/tlog-cosignature).
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newWitness(vkey string) (*witness, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("malformed vkey")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return nil, errors.New("not the vkey of a witness")
	}
	hash := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	if parts[1] != fmt.Sprintf("%x", hash[:4]) {
		return nil, errors.New("vkey with another hash")
	}
	return &witness{parts[0], binary.BigEndian.Uint32(hash[:]), key[1:]}, nil
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return w.hash }
func (w *witness) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(signature))
	return ed25519.Verify(w.key, append([]byte(head), text...), signature[8:])
}

// checkTree verifies a static log (c2sp.org/tlog-tiles): it builds the tree from the leaves and
// compares every tile. It does not use tlog.TileHashReader: that of v0.7.0 returns hashes of full tiles
// that it has not verified, if several parts of the tree's right edge are in one tile.
func (made claim) checkTree() error {
	signed, err := os.ReadFile(filepath.Join(made.Folder, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := made.open(string(signed), made.Witnesses)
	if err != nil {
		return err
	}
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) (found []tlog.Hash, err error) {
		for _, index := range indexes {
			found = append(found, stored[index])
		}
		return found, nil
	})
	leftOut := 0
	for begin := int64(0); begin < tree.N; begin += 256 {
		leaves, err := made.leaves(tree, begin)
		if err != nil {
			return err
		}
		err = made.checkEntries(leaves, begin)
		if errors.Is(err, os.ErrNotExist) {
			leftOut++
		} else if err != nil {
			return err
		}
		for place, leaf := range leaves {
			hashes, err := tlog.StoredHashesForRecordHash(begin+int64(place), leaf, reader)
			if err != nil {
				return err
			}
			stored = append(stored, hashes...)
		}
	}
	if root, err := tlog.TreeHash(tree.N, reader); err != nil || root != tree.Hash {
		return fmt.Errorf("the leaves have the root %s, %v", root, err)
	}
	if leftOut != made.LeftOut {
		return fmt.Errorf("%d bundles of entries are missing", leftOut)
	}
	for _, tile := range tlog.NewTiles(8, 0, tree.N) {
		// It also lists each partial tile that there once was.
		if tile.W < 256 && int64(tile.W) != tree.N>>(8*tile.L)%256 {
			continue
		}
		computed, err := tlog.ReadTileData(tile, reader)
		if err != nil {
			return err
		}
		found, err := os.ReadFile(made.path(tile))
		if err != nil {
			return err
		}
		if !bytes.Equal(found, computed) {
			return fmt.Errorf("%s differs", tile.Path())
		}
	}
	return nil
}

// leaves reads the hashes of a tile of level 0.
func (made claim) leaves(tree tlog.Tree, begin int64) (leaves tlog.RecordProof, err error) {
	tile := tlog.Tile{H: 8, N: begin / 256, W: 256}
	if tree.N-begin < 256 {
		tile.W = int(tree.N - begin)
	}
	content, err := os.ReadFile(made.path(tile))
	if err != nil {
		return nil, err
	}
	if len(content) != tile.W*tlog.HashSize {
		return nil, fmt.Errorf("%s has %d bytes", tile.Path(), len(content))
	}
	for place := 0; place < len(content); place += tlog.HashSize {
		var leaf tlog.Hash
		copy(leaf[:], content[place:])
		leaves = append(leaves, leaf)
	}
	return leaves, nil
}

// checkEntries compares a bundle of entries (tlog-tiles) with the hashes of their tile.
func (made claim) checkEntries(leaves tlog.RecordProof, begin int64) error {
	entries, err := os.ReadFile(made.path(tlog.Tile{H: 8, L: -1, N: begin / 256, W: len(leaves)}))
	if err != nil {
		return err
	}
	for place, leaf := range leaves {
		if len(entries) < 2 || len(entries) < 2+int(binary.BigEndian.Uint16(entries)) {
			return fmt.Errorf("entry %d is cut off", begin+int64(place))
		}
		end := 2 + int(binary.BigEndian.Uint16(entries))
		if tlog.RecordHash(entries[2:end]) != leaf {
			return fmt.Errorf("entry %d has another hash", begin+int64(place))
		}
		entries = entries[end:]
	}
	if len(entries) > 0 {
		return fmt.Errorf("%d bytes too many behind the entries from %d on", len(entries), begin)
	}
	return nil
}

// path is the package's but for the height, which tlog-tiles leaves out, and the name of entries.
func (made claim) path(tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
	return filepath.Join(made.Folder, strings.Replace(path, "tile/data/", "tile/entries/", 1))
}

func hashes(all [][]byte) (tlog.RecordProof, error) {
	proof := make(tlog.RecordProof, len(all))
	for place, hash := range all {
		if len(hash) != tlog.HashSize {
			return nil, fmt.Errorf("a hash of %d bytes", len(hash))
		}
		copy(proof[place][:], hash)
	}
	return proof, nil
}
