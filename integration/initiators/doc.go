// Package initiators tests Clade together with AoE programs that others wrote, in network namespaces: the conformance suite on
// Debian's vblade and on a cluster of one node, and Debian's aoetools on that cluster. Its tests need root and the packages, and
// skip with the missing thing named; with CI=true they fail instead.
package initiators
