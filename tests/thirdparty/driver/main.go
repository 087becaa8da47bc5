// Asks golang.org/x/mod what it thinks of a log of ours: checkpoint, inclusion, consistency, tiles.
//
// Reads one JSON request from standard input. Exit code 0: accepted; 1: refused, with the reason on standard error.
// Nothing is verified here that the module can verify: this only hands things over. The module knows no cosignatures,
// so the message that one signs (c2sp.org/tlog-cosignature) is put together here; the note package does the rest.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type request struct {
	Op        string   `json:"op"`
	Note      []byte   `json:"note"`
	LogKey    string   `json:"log_key"`
	Witnesses []string `json:"witnesses"`
	Quorum    int      `json:"quorum"`
	Source    string   `json:"source"`
	Size      int64    `json:"size"`
	Root      []byte   `json:"root"`
	OldSize   int64    `json:"old_size"`
	OldRoot   []byte   `json:"old_root"`
	Index     int64    `json:"index"`
	Leaf      []byte   `json:"leaf"`
	Proof     [][]byte `json:"proof"`
}

func main() {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		refuse(err)
	}
	var err error
	switch asked.Op {
	case "checkpoint":
		err = checkpoint(asked)
	case "inclusion":
		err = tlog.CheckRecord(hashes(asked.Proof), asked.Size, hash(asked.Root), asked.Index, tlog.RecordHash(asked.Leaf))
	case "consistency":
		err = tlog.CheckTree(hashes(asked.Proof), asked.Size, hash(asked.Root), asked.OldSize, hash(asked.OldRoot))
	case "tiles":
		err = tiles(asked)
	default:
		err = fmt.Errorf("unknown op %q", asked.Op)
	}
	if err != nil {
		refuse(err)
	}
}

func refuse(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func checkpoint(asked request) error {
	log, err := note.NewVerifier(asked.LogKey)
	if err != nil {
		return err
	}
	known := []note.Verifier{log}
	for _, key := range asked.Witnesses {
		witness, err := newCosignatureVerifier(key)
		if err != nil {
			return err
		}
		known = append(known, witness)
	}
	opened, err := note.Open(asked.Note, note.VerifierList(known...))
	if err != nil {
		return err
	}
	logs, witnesses := 0, 0
	for _, signature := range opened.Sigs {
		if signature.Name == log.Name() && signature.Hash == log.KeyHash() {
			logs++
		} else {
			witnesses++
		}
	}
	if logs == 0 {
		return errors.New("not signed by the log")
	}
	if witnesses < asked.Quorum {
		return fmt.Errorf("%d of %d cosignatures", witnesses, asked.Quorum)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != log.Name() {
		return errors.New("not a checkpoint of this log")
	}
	return nil
}

// cosignatureVerifier verifies signatures of type 0x04 over a checkpoint.
type cosignatureVerifier struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosignatureVerifier(vkey string) (*cosignatureVerifier, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	id, encoded, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != 0x04 {
		return nil, errors.New("not the key of a witness")
	}
	digest := sha256.Sum256(append([]byte(name+"\n"), raw...))
	hash := binary.BigEndian.Uint32(digest[:4])
	if fmt.Sprintf("%08x", hash) != id {
		return nil, errors.New("the key's id is not that of its bytes")
	}
	return &cosignatureVerifier{name, hash, ed25519.PublicKey(raw[1:])}, nil
}

func (v *cosignatureVerifier) Name() string    { return v.name }
func (v *cosignatureVerifier) KeyHash() uint32 { return v.hash }
func (v *cosignatureVerifier) Verify(message, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	time := binary.BigEndian.Uint64(signature[:8])
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, message)
	return ed25519.Verify(v.key, []byte(signed), signature[8:])
}

// sourceTiles reads tiles as c2sp.org/tlog-tiles lays them out: as the module does, but without the height. The source is
// a folder or an http address.
type sourceTiles struct{ source string }

func (s sourceTiles) Height() int                         { return 8 }
func (s sourceTiles) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (s sourceTiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var contents [][]byte
	for _, tile := range wanted {
		content, err := s.read(strings.Replace(tile.Path(), "tile/8/", "tile/", 1))
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

func (s sourceTiles) read(path string) ([]byte, error) {
	if !strings.HasPrefix(s.source, "http://") {
		return os.ReadFile(filepath.Join(s.source, filepath.FromSlash(path)))
	}
	answer, err := http.Get(s.source + "/" + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

// tiles proves a record and an earlier size of the tree by nothing but the tiles.
func tiles(asked request) error {
	tree := tlog.Tree{N: asked.Size, Hash: hash(asked.Root)}
	reader := tlog.TileHashReader(tree, sourceTiles{asked.Source})
	proof, err := tlog.ProveRecord(asked.Size, asked.Index, reader)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(proof, asked.Size, tree.Hash, asked.Index, tlog.RecordHash(asked.Leaf)); err != nil {
		return err
	}
	grown, err := tlog.ProveTree(asked.Size, asked.OldSize, reader)
	if err != nil {
		return err
	}
	return tlog.CheckTree(grown, asked.Size, tree.Hash, asked.OldSize, hash(asked.OldRoot))
}

func hash(raw []byte) (digest tlog.Hash) {
	copy(digest[:], raw)
	return digest
}

func hashes(raws [][]byte) []tlog.Hash {
	var digests []tlog.Hash
	for _, raw := range raws {
		digests = append(digests, hash(raw))
	}
	return digests
}
