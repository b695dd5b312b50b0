// Reads a log with Go's own golang.org/x/mod/sumdb packages, which nobody here wrote: opens the
// signed note, rebuilds proofs from the tiles and checks them against the signed root.
package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type directory struct{ root string }

func (directory) Height() int                                { return 8 }
func (directory) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

func (d directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		// Go's layout has the height as its first path element, tlog-tiles has not.
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(d.root, path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func check(err error) {
	if err != nil {
		fmt.Println("FAILED:", err)
		os.Exit(1)
	}
}

func main() {
	root := os.Args[1]
	verifier, err := note.NewVerifier(os.Args[2])
	check(err)
	old, err := strconv.ParseInt(os.Args[3], 10, 64)
	check(err)
	data, err := os.ReadFile(filepath.Join(root, "checkpoint"))
	check(err)
	opened, err := note.Open(data, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	raw, err := base64.StdEncoding.DecodeString(lines[2])
	check(err)
	var hash tlog.Hash
	copy(hash[:], raw)
	tree := tlog.Tree{N: size, Hash: hash}
	reader := tlog.TileHashReader(tree, directory{root})
	for index := int64(0); index < size; index += 1 + size/50 {
		bundle, err := os.ReadFile(os.Args[4+int(index/256)])
		check(err)
		at := 0
		for skip := index % 256; skip > 0; skip-- {
			at += 2 + int(bundle[at])<<8 + int(bundle[at+1])
		}
		length := int(bundle[at])<<8 + int(bundle[at+1])
		entry := bundle[at+2 : at+2+length]
		proof, err := tlog.ProveRecord(size, index, reader)
		check(err)
		check(tlog.CheckRecord(proof, size, hash, index, tlog.RecordHash(entry)))
	}
	oldHash, err := tlog.TreeHash(old, reader)
	check(err)
	proof, err := tlog.ProveTree(size, old, reader)
	check(err)
	check(tlog.CheckTree(proof, size, hash, old, oldHash))
	fmt.Println("OK", size, base64.StdEncoding.EncodeToString(oldHash[:]))
}
