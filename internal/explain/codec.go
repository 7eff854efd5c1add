package explain

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
)

// A record is written as magic, then the record as JSON with its length before it, then for each context its name, the number of its files,
// and these. Numbers are varints, texts have their length before them, a hash is its bytes.
const magic = "wherry build 1\n"

var errDamaged = errors.New("the record is damaged")

func (r *Record) encode() ([]byte, error) {
	head, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	b := appendText([]byte(magic), string(head))
	for _, context := range sorted(r.Files) {
		files := r.Files[context]
		b = appendText(b, context)
		b = binary.AppendUvarint(b, uint64(len(files)))
		for i := range files {
			f := &files[i]
			b = appendText(b, f.Path)
			b = binary.AppendUvarint(b, uint64(f.Mode))
			b = binary.AppendVarint(b, f.Size)
			b = binary.AppendVarint(b, f.Time)
			b = appendText(b, f.Target)
			sum, err := hex.DecodeString(f.Hash)
			if err != nil {
				return nil, err
			}
			b = appendText(b, string(sum))
		}
	}
	return b, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads from what is left; an error stays.
type decoder struct {
	left []byte
	err  error
}

func decode(data []byte) (*Record, error) {
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, errDamaged
	}
	d := &decoder{left: data[len(magic):]}
	r := &Record{Files: map[string][]File{}}
	if err := json.Unmarshal([]byte(d.text()), r); err != nil {
		return nil, errDamaged
	}
	for d.err == nil && len(d.left) > 0 {
		context, n := d.text(), d.number()
		if n > uint64(len(d.left)) { // a file takes more than a byte
			return nil, errDamaged
		}
		files := make([]File, 0, min(n, 1<<16))
		for ; n > 0 && d.err == nil; n-- {
			files = append(files, File{
				Path: d.text(), Mode: uint32(d.number()), Size: d.signed(), Time: d.signed(), Target: d.text(), Hash: hex.EncodeToString([]byte(d.text())),
			})
		}
		r.Files[context] = files
	}
	return r, d.err
}

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.left)
	if n <= 0 {
		d.left, d.err = nil, errDamaged
		return 0
	}
	d.left = d.left[n:]
	return v
}

func (d *decoder) signed() int64 {
	v, n := binary.Varint(d.left)
	if n <= 0 {
		d.left, d.err = nil, errDamaged
		return 0
	}
	d.left = d.left[n:]
	return v
}

func (d *decoder) text() string {
	n := d.number()
	if n > uint64(len(d.left)) {
		d.left, d.err = nil, errDamaged
		return ""
	}
	s := string(d.left[:n])
	d.left = d.left[n:]
	return s
}
