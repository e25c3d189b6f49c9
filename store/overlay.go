package store

import "slices"

// image is a block's version in a record.
type image struct {
	rec *record
	at  int // index in rec.Blocks
}

func (im image) alive() bool  { return im.rec.dead == nil || !im.rec.dead[im.at] }
func (im image) data() []byte { return im.rec.Blocks[im.at].Data }

// overlay finds the versions of blocks that are in the journal and not in place. Most blocks have one: it needs no memory of its own.
type overlay map[blockID]versions

// versions are a block's, oldest first.
type versions struct {
	first image
	rest  []image
}

// add adds a block's newest version.
func (o overlay) add(id blockID, im image) {
	v := o[id]
	if v.first.rec == nil {
		v.first = im
	} else {
		v.rest = append(v.rest, im)
	}
	o[id] = v
}

// drop takes versions of a block out.
func (o overlay) drop(id blockID, gone func(image) bool) {
	v := o[id]
	if v.first.rec == nil {
		return
	}
	v.rest = slices.DeleteFunc(v.rest, gone)
	if gone(v.first) {
		if len(v.rest) == 0 {
			delete(o, id)
			return
		}
		v.first = v.rest[0]
		v.rest = slices.Delete(v.rest, 0, 1)
	}
	o[id] = v
}

// each calls f with every version of a block, oldest first.
func (o overlay) each(id blockID, f func(image)) {
	v := o[id]
	if v.first.rec == nil {
		return
	}
	f(v.first)
	for _, im := range v.rest {
		f(im)
	}
}
