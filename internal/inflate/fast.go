package inflate

import "encoding/binary"

const (
	litMask  = 1<<litBits - 1
	distMask = 1<<distBits - 1
	inMargin = 24 // bytes that one turn may load
)

// fast decodes while neither input nor output can run out within a turn, and returns the entry that ends the block, or 0.
//
// A turn begins with 56 bits at least. Three literals use up to 33 of them; where a length follows literals the bits are filled up again, as
// a length takes up to 20 and a distance up to 28. Matches are copied by 16 bytes, past their ends: what stands there is written later.
func (d *decoder) fast() (end entry) {
	in, out, lit, dist := d.input.buf[:d.end], d.window.buf, &d.lit, &d.dist
	pos, n, hold, bits := d.pos, d.n, d.hold, d.bits
	for pos <= len(in)-inMargin && n <= outLimit {
		hold |= binary.LittleEndian.Uint64(in[pos:pos+8:pos+8]) << (bits & 63)
		pos += int((63 - bits) >> 3)
		bits |= 56
		e := lit[hold&litMask]
		if e&literal != 0 {
			hold >>= e & usedMask
			bits -= uint(e & usedMask)
			out[n] = e.byte()
			n++
			e = lit[hold&litMask]
			if e&literal != 0 {
				hold >>= e & usedMask
				bits -= uint(e & usedMask)
				out[n] = e.byte()
				n++
				e = lit[hold&litMask]
				if e&literal != 0 {
					hold >>= e & usedMask
					bits -= uint(e & usedMask)
					out[n] = e.byte()
					n++
					continue
				}
			}
			hold |= binary.LittleEndian.Uint64(in[pos:pos+8:pos+8]) << (bits & 63)
			pos += int((63 - bits) >> 3)
			bits |= 56
		}
		if e&special != 0 {
			if e&subTable == subTable {
				hold >>= litBits
				bits -= litBits
				e = lit[e.sub(hold)%litSize]
			}
			if e&(literal|special) != 0 {
				hold >>= e & usedMask
				bits -= uint(e & usedMask)
				if e&special != 0 {
					end = e
					break
				}
				out[n] = e.byte()
				n++
				continue
			}
		}
		length := e.value(hold)
		hold >>= e & usedMask
		bits -= uint(e & usedMask)
		e = dist[hold&distMask]
		if e&subTable == subTable {
			hold >>= distBits
			bits -= distBits
			e = dist[e.sub(hold)%distSize]
		}
		far := e.value(hold)
		hold >>= e & usedMask
		bits -= uint(e & usedMask)
		from, to := n-far, n
		if e&special != 0 || from < d.low {
			end = invalid
			break
		}
		n += length
		if far < 16 {
			d.window.n = to
			d.match(far, length)
			continue
		}
		for to < n {
			a, b := out[from:from+16:from+16], out[to:to+16:to+16]
			first, second := binary.LittleEndian.Uint64(a), binary.LittleEndian.Uint64(a[8:])
			binary.LittleEndian.PutUint64(b, first)
			binary.LittleEndian.PutUint64(b[8:], second)
			from += 16
			to += 16
		}
	}
	d.pos, d.n, d.hold, d.bits = pos, n, hold, bits
	d.unhold()
	return end
}
