// Package conformance checks a target against AoEr11 and against what real
// initiators need of it: the frames that the Linux driver, iPXE, WinAoE, Plan 9,
// aoetools and nmap send, and the answers that they can live with.
//
// Each Check stands alone and says where its rule comes from and what a target
// that breaks it would do to whom. A check ends with one of four verdicts:
//
//	PASS     the target does what the rule says
//	FAIL     it does not, and AoEr11 or a real initiator needs it
//	DIFFERS  it does not do what Clade does where AoEr11 leaves a choice and
//	         no known initiator is harmed
//	SKIP     the check could not be made; the result says why
//
// Checks marked destructive change the volume: its config string, MAC mask,
// reservation, and a few sectors at its end. They run only if asked for; what
// was there is read first and put back at the end, also when the run is
// cancelled. Nobody else should use the volume meanwhile: while they run it is
// open to everybody, and a reservation or mask of others is not in force.
//
// Frames are made and read byte by byte here, not by the code that Clade's own
// target uses, so that a common misreading does not hide.
package conformance
