// Package linktest is the conformance suite for link.Port: what every port
// promises, whatever it is made of.
package linktest
