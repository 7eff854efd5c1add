// Package review holds no code: its tests look at the tree itself, at what imports what, and at what grew too large.
package review
