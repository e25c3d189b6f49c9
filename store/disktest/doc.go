// Package disktest has what package store and everything above it are tested with: a device in memory that loses power, tears
// writes and rots as its seed says, the rules of A.3 in their plainest form to compare with, and a suite that any kind of device
// must pass.
package disktest
